"""Destroy tenants: delete all configs of a tenant and destroy its data key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.clock import Clock
from confide.errors import NotFound
from confide.identity.model import Principal
from confide.names import ConfigKey

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.changes.feed import ChangeFeed
    from confide.changes.subscriber import ChangeSubscriber
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.crypto.store import DataKeyStore
    from confide.identity.access import Access


class Tenants:
    """Destroys tenants, for admins."""

    def __init__(
        self,
        data_keys: DataKeyStore,
        encryption: EnvelopeEncryption,
        *,
        access: Access,
        recorder: AuditRecorder,
        subscriber: ChangeSubscriber,
        change_feed: ChangeFeed,
        clock: Clock,
    ) -> None:
        self._subscriber = subscriber
        self._change_feed = change_feed
        self._data_keys = data_keys
        self._encryption = encryption
        self._access = access
        self._recorder = recorder
        self._clock = clock

    async def destroy(self, tenant: str, *, principal: Principal) -> int:
        """Delete all configs of a tenant and destroy its data key. Return the number of deleted configs.

        No version that was encrypted with the key can be decrypted again. A later save creates a new data key.
        """
        await self._access.require_admin(principal, action="destroy tenant")
        audit = self._recorder.sign("destroy tenant", "destroyed", principal=principal, key=ConfigKey(tenant, "*"))
        destroyed = await self._data_keys.destroy_tenant(
            tenant, user_id=principal.user_id, at=self._clock(), audit=audit
        )
        if destroyed is None:
            raise NotFound
        self._encryption.forget_keys(destroyed.data_key_ids)
        self._subscriber.clear_caches()
        self._change_feed.notify()
        return destroyed.deleted_configs
