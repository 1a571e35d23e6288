"""Subscribe to the change feed and keep the caches of this process current."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from confide.caching.lease import Lease
from confide.caching.lru_cache import CacheEntry, LruCache
from confide.changes.model import Change, ChangeFeedReset
from confide.changes.watch import WatchHub
from confide.clock import read_boot_clock
from confide.configs.model import Kind
from confide.epoch import CurrentEpoch
from confide.errors import DatabaseUnavailable
from confide.telemetry.outage import Outage

if TYPE_CHECKING:
    from confide.changes.feed import ChangeFeed
    from confide.identity.authenticator import Authenticator
    from confide.integration_types.active import ActiveIntegrationTypes
    from confide.reads.cache import ConfigCache

# The pause before the next attempt after a failed read.
RETRY_SECONDS = 0.1

_log = logging.getLogger("confide")


class ChangeSubscriber:
    """Reads the change feed and applies the changes to the caches. Only then does it renew their lease."""

    def __init__(
        self,
        change_feed: ChangeFeed,
        *,
        epoch: CurrentEpoch,
        lease: Lease,
        memory: LruCache[CacheEntry],
        cache: ConfigCache,
        authenticator: Authenticator,
        types: ActiveIntegrationTypes,
        hub: WatchHub,
    ) -> None:
        self._types = types
        self._hub = hub
        self._change_feed = change_feed
        self._epoch = epoch
        self._lease = lease
        self._memory = memory
        self._cache = cache
        self._authenticator = authenticator
        self._outage = Outage()
        self._has_read = False
        self._connection_number = change_feed.connection_number
        # Counters for metrics.
        self.applied = 0
        self.resets = 0
        epoch.call_on_end(self._end_epoch)

    async def run(self) -> None:
        """Apply changes until cancelled. During a failure the lease expires, so that reads go to the database."""
        while True:
            if await self.read_changes():
                await self._change_feed.wait()
            else:
                await asyncio.sleep(RETRY_SECONDS)

    async def read_changes(self) -> bool:
        """Read the feed once and apply its changes. Return False after a failure."""
        sent_at = read_boot_clock()
        period = self._memory.begin_period()
        try:
            self._apply_all(await self._change_feed.read())
        except ChangeFeedReset:
            _log.warning("change_feed_reset action=clear_caches")
            self.clear_caches()
            self._hub.disconnect_all()
            return True
        except (DatabaseUnavailable, TimeoutError) as error:
            if (reason := self._outage.find_new_reason(error)) is not None:
                _log.warning("change_feed_unavailable reason=%s", reason)
            return False
        except Exception:  # noqa: BLE001 - the next read may succeed
            _log.exception("change_feed_failed")
            self.clear_caches()  # some of the changes may not have been applied
            return False
        if (seconds := self._outage.end()) is not None:
            _log.info("change_feed_available outage_seconds=%.1f", seconds)
        if self._connection_number != self._change_feed.connection_number:
            self._connection_number = self._change_feed.connection_number
            # After a failover, a version that only another read has returned may be lost.
            self._discard_pending()
            self._memory.drop_uncovered()
        self._memory.cover(period)
        self._lease.renew(sent_at)
        return True

    def _end_epoch(self) -> None:
        """Forget everything that this process has from the epoch that ended."""
        _log.warning("epoch_ended action=clear_caches next_epoch=%s", self._epoch.value.id)
        self.clear_caches()
        self._hub.end_epoch()

    def clear_caches(self) -> None:
        """Clear all caches and discard the results of reads in progress."""
        self.resets += 1
        self._clear()

    def apply_type_change(self, name: str) -> None:
        """Remove an integration type that this or another process changed, and its configs, from the caches."""
        self._types.forget(name)
        self._cache.invalidate_type(name)

    def _clear(self) -> None:
        self._discard_pending()
        self._memory.clear()

    def _discard_pending(self) -> None:
        self._cache.discard_pending()
        self._types.discard_pending()
        self._authenticator.discard_pending()

    def _apply_all(self, changes: list[Change]) -> None:
        if not self._has_read:
            # The first read only finds the end of the log. Entries that were cached before it may be stale.
            self._clear()
            self._has_read = True
        for change in changes:
            self._apply(change)
        self.applied += len(changes)
        if changes:
            self._hub.notify()

    def _apply(self, change: Change) -> None:
        if change.key is not None:
            self._cache.observe_version(
                change.key, change.version or 0, is_deleted=change.kind == Kind.DELETED, is_in_feed=True
            )
        elif change.kind == "type-changed" and change.integration_type is not None:
            self.apply_type_change(change.integration_type)
        elif change.subject is None:
            return
        elif change.kind in ("user-changed", "user-removed"):
            self._authenticator.forget_user(change.subject)
        elif change.kind == "token-revoked":
            self._authenticator.forget_token(change.subject)
