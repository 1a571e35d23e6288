"""The end of a tenant: all its configs retired and its key destroyed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.clock import Clock
from confide.errors import NotFound
from confide.identity.model import Principal
from confide.names import Key

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.changes.feed import ChangeFeed
    from confide.changes.subscriber import ChangeSubscriber
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.crypto.store import DataKeyStore
    from confide.identity.access import Access


class Tenants:
    """Acts on whole tenants, for admins."""

    def __init__(
        self,
        data_keys: DataKeyStore,
        sealer: EnvelopeEncryption,
        *,
        access: Access,
        auditor: AuditRecorder,
        listener: ChangeSubscriber,
        change_feed: ChangeFeed,
        clock: Clock,
    ) -> None:
        self._listener = listener
        self._change_feed = change_feed
        self._data_keys = data_keys
        self._sealer = sealer
        self._access = access
        self._auditor = auditor
        self._clock = clock

    async def destroy(self, tenant: str, *, principal: Principal) -> int:
        """Retire all configs of a tenant and destroy its key; returns how many were retired.

        Nothing sealed under that key opens again, old versions included. A config saved for the tenant
        afterwards gets a new key.
        """
        await self._access.require_admin(principal, action="destroy tenant")
        audit = self._auditor.sign("destroy tenant", "destroyed", principal=principal, key=Key(tenant, "*"))
        destroyed = await self._data_keys.destroy_tenant(
            tenant, user_id=principal.user_id, at=self._clock(), audit=audit
        )
        if destroyed is None:
            raise NotFound
        self._sealer.forget(destroyed.key_ids)
        self._listener.forget_all()
        self._change_feed.notify()
        return destroyed.retired
