"""Makes the entries of the audit and appends those that explain no change."""

from __future__ import annotations

from confide.audit.model import AuditEntry
from confide.clock import Clock
from confide.context import current_request
from confide.crypto.envelope import EnvelopeEncryption
from confide.identity.model import Principal
from confide.names import Key
from confide.server.stores import Store


class AuditRecorder:
    """Says who did what to what, when, from where, with which result; never a value."""

    def __init__(self, store: Store, sealer: EnvelopeEncryption, clock: Clock) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock

    def entry(
        self,
        action: str,
        outcome: str,
        *,
        principal: Principal | None,
        key: Key | None = None,
        version: int | None = None,
        subject: str | None = None,
        digest: bytes | None = None,
    ) -> tuple[AuditEntry, bytes]:
        """Return an entry about the request under way, and its MAC under the store's audit key."""
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
        return entry, self._sealer.mac("audit", entry.authenticated_bytes())

    async def note(
        self,
        action: str,
        outcome: str,
        *,
        principal: Principal | None,
        key: Key | None = None,
        version: int | None = None,
        subject: str | None = None,
    ) -> None:
        entry, mac = self.entry(action, outcome, principal=principal, key=key, version=version, subject=subject)
        await self._store.note(entry, mac=mac)
