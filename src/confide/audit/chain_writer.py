"""Append audit entries to the hash chain, and sign checkpoints, in the background."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from confide.audit.chain import Checkpoint, encode_signed_part
from confide.audit.checkpoint_file import CheckpointFile
from confide.clock import Clock
from confide.database.seen_commits import SeenCheckpoint, SeenCommits
from confide.errors import Busy, DatabaseUnavailable, describe_error
from confide.telemetry.outage import Outage

if TYPE_CHECKING:
    from confide.audit.store import AuditStore
    from confide.crypto.envelope import EnvelopeEncryption

# The intervals of the two background tasks.
APPEND_SECONDS = 0.4
CHECKPOINT_SECONDS = 60.0

_log = logging.getLogger("confide")


class ChainWriter:
    """Appends new audit entries to the hash chain within a second. A lock lets one process at a time append."""

    def __init__(
        self,
        audit: AuditStore,
        encryption: EnvelopeEncryption,
        *,
        seen: SeenCommits,
        clock: Clock,
        checkpoint_file: CheckpointFile,
    ) -> None:
        self._audit = audit
        self._seen = seen
        self._encryption = encryption
        self._clock = clock
        self._checkpoint_file = checkpoint_file
        self._outage = Outage()
        self._unwritten: list[Checkpoint] = []
        self._has_unsigned = False
        # The last state that this process found signed.
        self._signed: SeenCheckpoint | None = None
        # In the past, so that entries that an earlier process left unsigned are signed at once.
        self._signed_at = -CHECKPOINT_SECONDS

    async def run(self) -> None:
        """Append and sign until cancelled. Log failures and try again."""
        while True:
            try:
                await self.append_entries()
                if (seconds := self._outage.end()) is not None:
                    _log.info("audit_chain_available outage_seconds=%.1f", seconds)
                if (self._has_unsigned or self._unwritten) and time.monotonic() - self._signed_at > CHECKPOINT_SECONDS:
                    await self.sign_checkpoint()
            except (DatabaseUnavailable, Busy) as error:
                if (reason := self._outage.find_new_reason(error)) is not None:
                    _log.warning("audit_chain_unavailable reason=%s", reason)
            except Exception:  # noqa: BLE001 - the next attempt may succeed
                _log.exception("audit_chain_failed")
            await asyncio.sleep(APPEND_SECONDS)

    async def append_entries(self) -> int:
        """Append every entry whose order is final; return their number."""
        count = 0
        while await self._audit.has_unchained_entries():
            appended = await self._audit.chain_next_entries()
            if not appended:
                break  # a running transaction may still commit an earlier entry
            count += appended
            await asyncio.sleep(0)
        self._has_unsigned = self._has_unsigned or count > 0
        return count

    async def sign_checkpoint(self) -> Checkpoint | None:
        """Sign the last link of the chain. Return None if there is no new entry or another process signed it."""
        self._has_unsigned, self._signed_at = False, time.monotonic()
        epoch = self._seen.epoch
        number = await self._audit.read_last_number()
        link = await self._audit.read_link(number)
        if link is None or SeenCheckpoint(number, link) == self._signed:
            await self._write_checkpoints()
            return None
        at = self._clock()
        signature = self._encryption.sign(encode_signed_part(number, link, at))
        checkpoint = Checkpoint(number, link, at, self._encryption.public_key, signature)
        is_inserted = await self._audit.insert_checkpoint(checkpoint)
        self._signed = SeenCheckpoint(number, link)
        self._seen.add_checkpoint(self._signed, epoch=epoch)
        if not is_inserted:
            return None
        self._unwritten.append(checkpoint)
        await self._write_checkpoints()
        return checkpoint

    async def _write_checkpoints(self) -> None:
        """Append signed checkpoints to the file. Keep those that fail for the next attempt."""
        pending, self._unwritten = self._unwritten, []
        for number, checkpoint in enumerate(pending):
            try:
                await asyncio.to_thread(self._checkpoint_file.append, checkpoint)
            except (OSError, asyncio.CancelledError) as error:
                self._unwritten = pending[number:] + self._unwritten
                if not isinstance(error, OSError):
                    raise
                _log.error("checkpoint_file_unavailable reason=%s", describe_error(error))
                return
