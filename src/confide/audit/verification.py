"""Read, export and verify the audit log, for admins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confide.audit.chain import BEGINNING, ChainBreak, ChainCheck, ChainedEntry, Checkpoint
from confide.audit.checkpoint_file import CheckpointFile
from confide.audit.linker import ChainLinker
from confide.audit.model import AuditFilter, ListedEntry
from confide.clock import SECOND, Clock
from confide.errors import InvalidCursor
from confide.identity.model import Principal

if TYPE_CHECKING:
    from confide.audit.store import AuditStore
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.identity.access import Access
    from confide.identity.store import UserStore

PORTION = 1_000
PAGE_SECONDS = 1.0
# An entry may wait this long for its link while an older transaction is in progress.
LINKED_WITHIN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of a verification so far; `after` is the last verified number, or None at the end."""

    checked: int
    bad: ChainBreak | None
    after: int | None
    unlinked: int = 0


class AuditLog:
    """Reads and verifies the audit log; every method requires an admin."""

    def __init__(
        self,
        users: UserStore,
        audit: AuditStore,
        encryption: EnvelopeEncryption,
        *,
        chain: ChainLinker,
        checkpoint_file: CheckpointFile,
        access: Access,
        clock: Clock,
    ) -> None:
        self._users = users
        self._audit = audit
        self._checkpoint_file = checkpoint_file
        self._chain = chain
        self._encryption = encryption
        self._access = access
        self._clock = clock

    async def page(
        self, selection: AuditFilter, *, login: str | None, principal: Principal, before: int | None, limit: int
    ) -> list[ListedEntry]:
        """List entries, newest first; `login` selects the entries of one actor."""
        await self._access.require_admin(principal, action="read audit")
        if login is not None:
            user = await self._users.read(login)
            selection = selection._replace(actor=-1 if user is None else user.id)
        return await self._audit.page(selection, before=before, limit=limit)

    async def export(self, *, principal: Principal, after: int, limit: int) -> list[ChainedEntry]:
        await self._access.require_admin(principal, action="export audit")
        return await self._audit.linked(after=after, limit=limit)

    async def checkpoints(self, *, principal: Principal, after: int, limit: int) -> list[Checkpoint]:
        """List checkpoints in order; for the first page, sign the current end of the chain."""
        await self._access.require_admin(principal, action="export audit")
        if not after:
            await self._chain.sign()
        return await self._audit.checkpoints(after=after, limit=limit)

    @property
    def public_key(self) -> bytes:
        return self._encryption.public_key

    async def verify(self, *, principal: Principal, after: int) -> Proof:
        """Verify entries for up to a second, after a number that is trusted."""
        await self.require_audit_reader(principal)
        found = Proof(0, None, after)
        until = time.monotonic() + PAGE_SECONDS
        async for found in self.verify_all(after=after):
            if found.after is not None and time.monotonic() >= until:
                break
        return found

    async def require_audit_reader(self, principal: Principal) -> None:
        await self._access.require_admin(principal, action="verify audit")

    async def verify_all(self, *, after: int = 0) -> AsyncIterator[Proof]:
        """Verify links, MACs and checkpoints; yields the progress after each portion and the result at the end."""
        before = BEGINNING if not after else await self._audit.link_of(after)
        if before is None:
            raise InvalidCursor
        stored = await self._audit.checkpoints(after=after)
        forged = await asyncio.to_thread(lambda: [one.number for one in stored if not self._is_signed(one)])
        if forged:
            yield Proof(0, ChainBreak(min(forged), "its checkpoint is not signed with this store's key"), None)
            return
        kept = await asyncio.to_thread(self._read_checkpoint_file, after)
        # The checkpoint of the file wins over one of the database with the same number.
        checkpoints = {one.number: one for one in [*stored, *kept]}
        check = ChainCheck(checkpoints, number=after, before=before, mac=self._mac)
        while portion := await self._audit.linked(after=check.number, limit=PORTION):
            if not check.follow(portion):
                break
            yield Proof(check.number - after, None, check.number)
            await asyncio.sleep(0)
        bad = check.bad or check.end()
        late = await self._audit.unlinked(before=self._clock() - LINKED_WITHIN_SECONDS * SECOND)
        yield Proof(check.number - after, bad, None, late)

    def _is_signed(self, checkpoint: Checkpoint) -> bool:
        return self._encryption.has_signed(checkpoint.signed_bytes(), checkpoint.signature)

    def _read_checkpoint_file(self, after: int) -> list[Checkpoint]:
        return [one for one in self._checkpoint_file.read() if one.number > after and self._is_signed(one)]

    def _mac(self, entry: bytes) -> bytes:
        return self._encryption.mac("audit", entry)
