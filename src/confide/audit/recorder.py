"""Sign audit entries, and record entries that belong to no change."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from confide.audit.model import BEGIN_EPOCH, COMMITS_LOST, AuditEntry, EntryDraft, SignedEntry
from confide.audit.origin import EntryJournal
from confide.clock import Clock
from confide.context import current_request
from confide.database.signed_rows import AlteredRows, RowName
from confide.epoch import Epoch
from confide.errors import Busy, DatabaseUnavailable, describe_error
from confide.identity.model import Principal
from confide.names import ConfigKey

if TYPE_CHECKING:
    from confide.audit.store import AuditStore
    from confide.crypto.envelope import EnvelopeEncryption

RETRY_SECONDS = 5.0

_log = logging.getLogger("confide")


class AuditRecorder:
    """Makes audit entries: actor, action, object, time, origin and outcome, never a value."""

    def __init__(self, audit: AuditStore, encryption: EnvelopeEncryption, clock: Clock) -> None:
        self._audit = audit
        self._encryption = encryption
        self._clock = clock
        self._journal = EntryJournal(partial(encryption.compute_mac, "audit"))

    def sign(
        self,
        action: str,
        outcome: str,
        *,
        principal: Principal | None,
        key: ConfigKey | None = None,
        version: int | None = None,
        subject: str | None = None,
        digest: bytes | None = None,
    ) -> EntryDraft:
        """Return an entry about the current request. The caller stores it in the transaction of its change."""
        request = current_request.get()
        entry = AuditEntry(
            at=self._clock(),
            action=action,
            outcome=outcome,
            actor=principal.user_id if principal else None,
            token_id=principal.token_id if principal else None,
            address=request.address,
            request_id=request.id,
            key=key,
            version=version,
            subject=subject,
            digest=digest,
        )
        return self._journal.draft(entry)

    def sign_epoch(self, epoch: Epoch, subject: str) -> SignedEntry:
        """Return a signed entry about an epoch. It belongs to no request, even if a request found the loss.

        It has no number, because its transaction may be rolled back with a connection that no caller waits for.
        """
        entry = AuditEntry(self._clock(), BEGIN_EPOCH, COMMITS_LOST, version=epoch.number, subject=subject)
        return SignedEntry(entry, self._encryption.compute_mac("audit", entry.encode()))

    async def record(
        self,
        action: str,
        outcome: str,
        *,
        principal: Principal | None,
        key: ConfigKey | None = None,
        version: int | None = None,
        subject: str | None = None,
    ) -> None:
        """Store an entry that belongs to no change, such as a denied request or a secret access."""
        await self._audit.insert(
            self.sign(action, outcome, principal=principal, key=key, version=version, subject=subject)
        )

    async def record_altered_rows(self, altered: AlteredRows) -> None:
        """Record rows that were altered without Confide, until cancelled. Try again when the database fails."""
        while True:
            try:
                await altered.run(self._record_altered_row)
            except (DatabaseUnavailable, Busy) as error:
                _log.warning("altered_row_unrecorded reason=%s", describe_error(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _record_altered_row(self, row: RowName) -> None:
        await self.record("verify row", "altered", principal=None, subject=str(row))
