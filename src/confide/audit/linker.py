"""Link audit entries into the hash chain and sign checkpoints in the background."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from confide.audit.chain import Checkpoint, signed_bytes
from confide.audit.checkpoint_file import CheckpointFile
from confide.clock import Clock
from confide.errors import Busy, DatabaseUnavailable

if TYPE_CHECKING:
    from confide.audit.store import AuditStore
    from confide.crypto.envelope import EnvelopeEncryption

LINK_SECONDS = 0.4
CHECKPOINT_SECONDS = 60.0

_log = logging.getLogger("confide")


class ChainLinker:
    """Links new audit entries within a second; one process at a time does."""

    def __init__(
        self, audit: AuditStore, encryption: EnvelopeEncryption, *, clock: Clock, checkpoint_file: CheckpointFile
    ) -> None:
        self._audit = audit
        self._encryption = encryption
        self._clock = clock
        self._checkpoint_file = checkpoint_file
        self._unwritten: list[Checkpoint] = []
        self._has_unsigned = False
        self._signed_number = 0
        self._signed_at = -CHECKPOINT_SECONDS  # entries that the previous process left unsigned are signed at once

    async def run(self) -> None:
        """Link and sign until cancelled; failures are logged and retried."""
        while True:
            try:
                await self.link()
                if (self._has_unsigned or self._unwritten) and time.monotonic() - self._signed_at > CHECKPOINT_SECONDS:
                    await self.sign()
            except (DatabaseUnavailable, Busy) as error:
                _log.warning("audit_chain_unavailable reason=%s", error or "timeout")
            except Exception:  # noqa: BLE001 - linking must go on
                _log.exception("audit_chain_failed")
            await asyncio.sleep(LINK_SECONDS)

    async def link(self) -> int:
        """Link all entries that can be linked now; returns their number."""
        count = 0
        while await self._audit.is_behind():
            linked = await self._audit.link_next()
            if not linked:
                break  # an older transaction may still commit before the rest
            count += linked
            await asyncio.sleep(0)
        self._has_unsigned = self._has_unsigned or count > 0
        return count

    async def sign(self) -> Checkpoint | None:
        """Sign the current end of the chain; returns None if there is no new entry."""
        self._has_unsigned, self._signed_at = False, time.monotonic()
        number = await self._audit.last_number()
        if number == self._signed_number:
            await self._write_checkpoints()
            return None
        link = await self._audit.link_of(number)
        if link is None:
            return None
        at = self._clock()
        signature = self._encryption.sign(signed_bytes(number, link, at))
        checkpoint = Checkpoint(number, link, at, self._encryption.public_key, signature)
        is_kept = await self._audit.keep_checkpoint(checkpoint)
        self._signed_number = number
        if not is_kept:
            return None  # another process signed it first
        self._unwritten.append(checkpoint)
        await self._write_checkpoints()
        return checkpoint

    async def _write_checkpoints(self) -> None:
        """Append signed checkpoints to the file; those that fail are kept for the next attempt."""
        pending, self._unwritten = self._unwritten, []
        for number, checkpoint in enumerate(pending):
            try:
                await asyncio.to_thread(self._checkpoint_file.append, checkpoint)
            except (OSError, asyncio.CancelledError) as error:
                self._unwritten = pending[number:] + self._unwritten
                if not isinstance(error, OSError):
                    raise
                _log.error("checkpoint_file_unavailable reason=%s", error)
                return
