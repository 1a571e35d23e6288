"""Read, export and verify the audit log, for admins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confide.audit.chain import FIRST_LINK, ChainBreak, ChainCheck, ChainPart, Checkpoint, LostStretch, Removal
from confide.audit.chain_writer import ChainWriter
from confide.audit.checkpoint_file import CheckpointFile
from confide.audit.model import AuditFilter, ListedEntry
from confide.audit.origin_check import OriginCheck
from confide.audit.store_check import StoreCheck
from confide.clock import MICROSECONDS_PER_SECOND, Clock
from confide.context import PAGE_SECONDS, set_deadline
from confide.errors import InvalidCursor
from confide.identity.model import Principal

if TYPE_CHECKING:
    from confide.audit.store import AuditStore
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.identity.access import Access
    from confide.identity.store import UserStore

BATCH_SIZE = 1_000
# An older entry outside the chain was added without Confide. A long transaction can delay an entry, but less.
MAX_UNCHAINED_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification so far. `after` is the last verified number, or None at the end."""

    checked: int
    bad: ChainBreak | None
    after: int | None
    # Entries that should be in the chain and are not.
    unchained: int = 0
    # Stretches of entries that were lost, which an admin must confirm.
    lost: tuple[LostStretch, ...] = ()
    # Changes of the store without Confide, as sentences.
    findings: tuple[str, ...] = ()
    # The number of entries that the retention removed.
    removed: int = 0

    @property
    def is_ok(self) -> bool:
        return self.bad is None and not self.unchained and not self.lost and not self.findings


class AuditLog:
    """Reads and verifies the audit log, for admins."""

    def __init__(
        self,
        users: UserStore,
        audit: AuditStore,
        encryption: EnvelopeEncryption,
        *,
        store_check: StoreCheck,
        chain_writer: ChainWriter,
        checkpoint_file: CheckpointFile,
        access: Access,
        clock: Clock,
    ) -> None:
        self._users = users
        self._audit = audit
        self._store_check = store_check
        self._checkpoint_file = checkpoint_file
        self._chain_writer = chain_writer
        self._encryption = encryption
        self._access = access
        self._clock = clock

    async def list_entries(
        self, selection: AuditFilter, *, login: str | None, principal: Principal, before: int | None, limit: int
    ) -> list[ListedEntry]:
        """List entries, the newest first. `login` selects the entries of one actor."""
        await self._access.require_admin(principal, action="read audit")
        if login is not None:
            user = await self._users.read(login)
            selection = selection._replace(actor=-1 if user is None else user.id)
        return await self._audit.list_entries(selection, before=before, limit=limit)

    async def export_entries(self, *, principal: Principal, after: int, limit: int) -> list[ChainPart]:
        await self._access.require_admin(principal, action="export audit")
        return await self._audit.list_chained(after=after, limit=limit)

    async def list_checkpoints(self, *, principal: Principal, after: int, limit: int) -> list[Checkpoint]:
        """List checkpoints in order. For the first page, sign the last link of the chain before."""
        await self._access.require_admin(principal, action="export audit")
        if not after:
            await self._chain_writer.sign_checkpoint()
        return await self._audit.list_checkpoints(after=after, limit=limit)

    @property
    def public_key(self) -> bytes:
        return self._encryption.public_key

    async def verify(self, *, principal: Principal, after: int) -> Verification:
        """Verify entries for up to a second, after a number that the caller trusts."""
        await self.require_audit_reader(principal)
        verification = Verification(0, None, after)
        until = time.monotonic() + PAGE_SECONDS
        async for verification in self.verify_all(after=after):
            if verification.after is not None and time.monotonic() >= until:
                break
        return verification

    async def require_audit_reader(self, principal: Principal) -> None:
        await self._access.require_admin(principal, action="verify audit")

    async def verify_all(self, *, after: int = 0) -> AsyncIterator[Verification]:
        """Verify links, MACs and checkpoints, and compare the store with the audit log.

        Yield the progress after each batch, and the result at the end.
        """
        link = FIRST_LINK if not after else await self._audit.read_link(after)
        if link is None:
            raise InvalidCursor
        stored = await self._audit.list_checkpoints(after=after)
        forged = await asyncio.to_thread(lambda: [one.number for one in stored if not self._has_valid_signature(one)])
        if forged:
            yield Verification(
                0, ChainBreak(min(forged), "its checkpoint is not signed with the key of this database"), None
            )
            return
        from_file = await asyncio.to_thread(self._read_checkpoint_file, after)
        # An attacker of the database cannot write the file, so it can contradict the database.
        losses = await self._audit.list_losses(self._compute_mac)
        check = ChainCheck([*stored, *from_file], losses=losses, number=after, link=link, mac=self._compute_mac)
        origins = OriginCheck(is_partial=bool(after))
        while parts := await self._audit.list_chained(after=check.number, limit=BATCH_SIZE):
            invalid = next(
                (one for one in parts if isinstance(one, Removal) and not self._has_valid_signature(one)), None
            )
            if invalid is not None:
                check.bad = ChainBreak(invalid.first, "its removal is not signed with the key of this database")
                break
            if not check.verify_next(parts):
                break
            for part in parts:
                origins.add(part)
            yield Verification(
                check.number - after, None, check.number, lost=tuple(check.list_lost()), removed=check.removed
            )
            await asyncio.sleep(0)
        bad = check.bad or check.finish()
        unchained = await self._audit.count_unchained(
            before=self._clock() - MAX_UNCHAINED_SECONDS * MICROSECONDS_PER_SECOND
        )
        # A large store takes longer than a response may. Each query still has its own time limit.
        set_deadline(None)
        findings = tuple(await self._store_check.find(origins, now=self._clock()))
        yield Verification(
            check.number - after, bad, None, unchained, tuple(check.list_lost()), findings, check.removed
        )

    def _has_valid_signature(self, signed: Checkpoint | Removal) -> bool:
        return self._encryption.is_signature_valid(signed.encode_signed_part(), signed.signature)

    def _read_checkpoint_file(self, after: int) -> list[Checkpoint]:
        return [one for one in self._checkpoint_file.read() if one.number > after and self._has_valid_signature(one)]

    def _compute_mac(self, entry: bytes) -> bytes:
        return self._encryption.compute_mac("audit", entry)
