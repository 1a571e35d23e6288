"""The cache of current configs. An older version never replaces a newer one."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from confide.caching.lease import Lease
from confide.caching.lru_cache import CacheEntry, LruCache
from confide.caching.stamps import (
    EVERYTHING,
    IN_DOUBT,
    SlotChange,
    Stamps,
    TakenStamps,
    find_config_slot,
    find_type_slot,
)
from confide.clock import read_boot_clock
from confide.configs.model import UNKNOWN_VERSION, KnownVersion
from confide.epoch import CurrentEpoch, Epoch
from confide.names import ConfigKey
from confide.reads.model import CurrentConfig, RenderedConfig, Rendering
from confide.reads.response import PreparedResponse

# How long the cache remembers that a config does not exist.
MISSING_TTL_SECONDS = 5.0
# The size of an entry without its key and responses.
CONFIG_BYTES = 480


class CachedConfig(CacheEntry):
    """One version of one config, with a prepared response for each rendering that a client has requested."""

    __slots__ = ("fresh_until", "is_missing", "newest_in_feed", "responses", "stamps", "superseded_at", "version")

    def __init__(self, key: ConfigKey, version: int, *, is_missing: bool, stamps: TakenStamps) -> None:
        super().__init__(CONFIG_BYTES + sum(map(sys.getsizeof, (key, *key, version))))
        self.version = version
        # The newest version that the change feed has delivered. 0 if it delivered none since the entry was added.
        self.newest_in_feed = 0
        # Those of the config, of its integration type and of everything, in this order.
        self.stamps = stamps
        # The config does not exist, so there are no responses.
        self.is_missing = is_missing
        # Indexed by `Rendering`.
        self.responses: list[PreparedResponse | None] = [None] * len(Rendering)
        self.fresh_until = 0.0
        # When the entry was last known to be current, if a newer version is known. Only stale reads may use it then.
        self.superseded_at = math.inf

    def invalidate(self) -> None:
        super().invalidate()
        for response in self.responses:
            if response is not None:
                response.is_invalid = True


class PendingUpdate:
    """A database read or a save in progress, whose version will be cached."""

    __slots__ = ("epoch", "newest_version", "stamps")

    def __init__(self, epoch: Epoch, stamps: TakenStamps) -> None:
        # Taken when it began.
        self.stamps = stamps
        # The epoch in which it began. When the epoch ends, its result is discarded.
        self.epoch = epoch
        # The newest version that became known in the meantime. An older result must not be cached.
        self.newest_version = 0

    def create_change(self) -> SlotChange:
        """Create the change of a save, for its transaction. Afterwards pass it to `adopt_stamp`."""
        return SlotChange(self.stamps.slots[0], self.stamps.stamps[0])

    def adopt_stamp(self, change: SlotChange) -> None:
        """Replace the stamp of the config by the one that the save wrote, or by one that is never current."""
        self.stamps = self.stamps.replace_first(IN_DOUBT if change.own_stamp is None else change.own_stamp)


class ConfigCache:
    """Current configs as prepared responses.

    An entry is fresh while four conditions hold: its stamps are current, the lease is valid, the time to live has not
    passed, and no newer version is known. A version that arrives in the change feed supersedes older entries and older
    pending updates.
    """

    def __init__(
        self,
        memory: LruCache[Any],
        lease: Lease,
        stamps: Stamps,
        *,
        epoch: CurrentEpoch,
        prepare: Callable[[RenderedConfig], PreparedResponse],
        ttl_seconds: float,
    ) -> None:
        self._memory = memory
        self._lease = lease
        self._stamps = stamps
        self._epoch = epoch
        self._prepare = prepare
        self._ttl_seconds = ttl_seconds
        self._pending: dict[ConfigKey, list[PendingUpdate]] = {}

    def find_fresh(self, key: ConfigKey, *, now: float) -> CachedConfig | None:
        """Return the entry of a config if it is fresh. An entry can say that the config is missing."""
        entry = self.find(key, now=now)
        if entry is None or now >= self._lease.expires_at or now >= entry.fresh_until or entry.is_invalid:
            return None
        return entry if self._stamps.is_unchanged(entry.stamps) else None

    def find_stale(self, key: ConfigKey, *, now: float) -> CachedConfig | None:
        """Return an entry that may be served as stale, if there is one.

        A changed integration type may make a visible member secret, and a destroyed tenant has no configs.
        """
        entry = self.find(key, now=now)
        return entry if entry is not None and self._stamps.is_unchanged(entry.stamps.without_first()) else None

    def is_superseded(self, entry: CachedConfig) -> bool:
        """Return whether a newer version may exist."""
        return entry.is_invalid or not self._stamps.is_unchanged(entry.stamps)

    def take_stamps(self, key: ConfigKey) -> TakenStamps:
        return self._stamps.take(find_config_slot(*key), find_type_slot(key.integration_type), EVERYTHING)

    def find(self, key: ConfigKey, *, now: float) -> CachedConfig | None:
        """Return the entry of a config, fresh or not, and mark it as used."""
        entry: CachedConfig | None = self._memory.get(key, now=now)
        return entry

    def compute_age_seconds(self, entry: CachedConfig) -> float:
        """Return the seconds since an entry was last known to be current."""
        return max(self._lease.compute_age_seconds(), read_boot_clock() - entry.superseded_at)

    def find_known_version(self, key: ConfigKey) -> KnownVersion:
        """Return the newest version of a config that this process knows. Call this before a database read."""
        entry: CachedConfig | None = self._memory.peek(key)
        if entry is None:
            return UNKNOWN_VERSION
        in_feed = entry.version if self._memory.is_covered(entry) else 0
        return KnownVersion(max(entry.version, entry.newest_in_feed), max(in_feed, entry.newest_in_feed))

    def find_still_known_version(self, key: ConfigKey, before: KnownVersion) -> KnownVersion:
        """Return what was known before a read and still is. Both are less after the end of an epoch."""
        now = self.find_known_version(key)
        return KnownVersion(min(before.version, now.version), min(before.in_feed, now.in_feed))

    def observe_version(
        self, key: ConfigKey, version: int, *, is_deleted: bool = False, is_in_feed: bool = False
    ) -> None:
        """Record that a version was saved, which supersedes older entries and older pending updates.

        If the version is a deletion, remove the entry: a deleted config is not served, not even as stale.
        """
        for update in self._pending.get(key, ()):
            update.newest_version = max(update.newest_version, version)
        entry: CachedConfig | None = self._memory.peek(key)
        if entry is None:
            return
        if is_in_feed:
            entry.newest_in_feed = max(entry.newest_in_feed, version)
        if entry.version >= version:
            return
        if is_deleted:
            self._memory.drop(key)
        elif not entry.is_invalid:
            # The entry was current at the previous read of the change feed, which is when the lease began.
            entry.superseded_at = read_boot_clock() - self._lease.compute_age_seconds()
            entry.invalidate()

    def forget(self, key: ConfigKey) -> None:
        """Remove the entry of a config, so that it is not served any more, not even as stale."""
        self._memory.drop(key)

    def invalidate_type(self, name: str) -> None:
        """Remove the entries of an integration type that changed, and discard their pending updates.

        They are not served as stale either, because the new schema may make a visible member secret.
        """
        for key, updates in self._pending.items():
            if key.integration_type == name:
                _discard(updates)
        for key in [
            key for key in self._memory.list_names() if isinstance(key, ConfigKey) and key.integration_type == name
        ]:
            self._memory.drop(key)

    def discard_pending(self) -> None:
        """Discard the results of all pending updates."""
        for updates in self._pending.values():
            _discard(updates)

    @contextmanager
    def begin_update(self, key: ConfigKey) -> Iterator[PendingUpdate]:
        """Register an update. Call this before the query of a database read, or before the commit of a save."""
        update = PendingUpdate(self._epoch.value, self.take_stamps(key))
        updates = self._pending.setdefault(key, [])
        updates.append(update)
        try:
            yield update
        finally:
            updates.remove(update)
            if not updates:
                self._pending.pop(key, None)

    def complete_update(
        self, update: PendingUpdate, key: ConfigKey, current: CurrentConfig, *, rendering: Rendering
    ) -> list[PreparedResponse | None] | None:
        """Cache the version that an update brings and return its responses. None if a newer version is known.

        If its stamps are no longer current, the responses are returned but not cached.
        """
        if current.version < update.newest_version:
            return None
        self.observe_version(key, current.version)
        entry: CachedConfig | None = self._memory.peek(key)
        if entry is not None and entry.version > current.version:
            return None
        if entry is not None and (entry.is_invalid or entry.stamps != update.stamps):
            entry = None
        stored, configuration, type_, _ = current
        is_missing = configuration is None
        response = None
        if stored and configuration is not None and type_ and (entry is None or entry.responses[rendering] is None):
            document = current.rendered or type_.render(configuration, rendering)
            rendered = RenderedConfig(stored, document, rendering, type_.tag_version, update.epoch, update.stamps)
            response = self._prepare(rendered)
        if entry is None:
            entry = CachedConfig(key, current.version, is_missing=is_missing, stamps=update.stamps)
            if self._stamps.is_current(update.stamps):
                self._memory.put(key, entry)
        entry.fresh_until = read_boot_clock() + (MISSING_TTL_SECONDS if is_missing else self._ttl_seconds)
        if response is not None:
            entry.responses[rendering] = response
            self._memory.grow(key, entry, response.size_bytes)
        return entry.responses


def _discard(updates: list[PendingUpdate]) -> None:
    for update in updates:
        update.newest_version = sys.maxsize
