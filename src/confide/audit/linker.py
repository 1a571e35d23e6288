"""Linking the audit into its chain, signing it now and then, and proving that nothing was altered."""

from __future__ import annotations

import asyncio
import logging
import time

from confide.audit.chain import Checkpoint, signed_bytes
from confide.audit.checkpoint_file import CheckpointFile
from confide.clock import Clock
from confide.crypto.envelope import EnvelopeEncryption
from confide.errors import Busy, DatabaseUnavailable
from confide.server.stores import Store

LINK_SECONDS = 0.4
CHECKPOINT_SECONDS = 60.0

_log = logging.getLogger("confide")


class ChainLinker:
    """Links what was written to the audit, within a second; one process at a time does, whichever comes first."""

    def __init__(self, store: Store, sealer: EnvelopeEncryption, *, clock: Clock, witness: CheckpointFile) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock
        # Writes a checkpoint down in a second place.
        self._witness = witness
        self._unwritten: list[Checkpoint] = []
        self._is_to_sign = False
        self._signed_number = 0
        self._signed_at = -CHECKPOINT_SECONDS  # what the process before left unsigned is signed at once

    async def run(self) -> None:
        """Go on until cancelled; nothing that goes wrong here holds anybody up."""
        while True:
            try:
                await self.link()
                if (self._is_to_sign or self._unwritten) and time.monotonic() - self._signed_at > CHECKPOINT_SECONDS:
                    await self.sign()
            except (DatabaseUnavailable, Busy) as error:
                _log.warning("the audit's chain waits for the store: %s", error or "no answer in time")
            except Exception:  # noqa: BLE001 - linking must go on
                _log.exception("a bug, met while linking the audit")
            await asyncio.sleep(LINK_SECONDS)

    async def link(self) -> int:
        """Link all there is; returns how many."""
        count = 0
        while await self._store.audit.is_behind():
            linked = await self._store.audit.link_next()
            if not linked:
                break  # what is left may still be overtaken
            count += linked
            await asyncio.sleep(0)
        self._is_to_sign = self._is_to_sign or count > 0
        return count

    async def sign(self) -> Checkpoint | None:
        """Sign the chain as it is now; None if there is nothing new."""
        self._is_to_sign, self._signed_at = False, time.monotonic()
        number = await self._store.audit.last_number()
        if number == self._signed_number:
            await self._write_down()
            return None
        link = await self._store.audit.link_of(number)
        if link is None:
            return None
        at = self._clock()
        signature = self._sealer.sign(signed_bytes(number, link, at))
        checkpoint = Checkpoint(number, link, at, self._sealer.public_key, signature)
        is_kept = await self._store.audit.keep_checkpoint(checkpoint)
        self._signed_number = number
        if not is_kept:
            return None  # another process has signed it
        self._unwritten.append(checkpoint)
        await self._write_down()
        return checkpoint

    async def _write_down(self) -> None:
        """Bring what was signed to the second place; what that does not take waits for the next time."""
        waiting, self._unwritten = self._unwritten, []
        for number, checkpoint in enumerate(waiting):
            try:
                await asyncio.to_thread(self._witness.append, checkpoint)
            except (OSError, asyncio.CancelledError) as error:
                self._unwritten = waiting[number:] + self._unwritten
                if not isinstance(error, OSError):
                    raise
                _log.error("the second place of the audit's checkpoints takes nothing, and is tried again: %s", error)
                return
