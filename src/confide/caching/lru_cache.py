"""An LRU cache with a memory limit in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from confide.clock import read_boot_clock

# Estimated overhead of an entry: its dictionary slot, the links that keep the order, and allocator rounding.
ENTRY_OVERHEAD_BYTES = 240
# Precision of the order of use. A busy entry moves to the end at most this often.
ORDER_SECONDS = 1.0


class CacheEntry:
    """A cached object.

    It is invalid once it is evicted, replaced or superseded: it must not count as fresh. A superseded config may still
    be served as stale.
    """

    __slots__ = ("added_in", "is_invalid", "size_bytes", "used_at")

    def __init__(self, size_bytes: int) -> None:
        self.is_invalid = False
        self.size_bytes = size_bytes + ENTRY_OVERHEAD_BYTES
        self.used_at = read_boot_clock()
        # The period of the cache in which it was added.
        self.added_in = 0

    def invalidate(self) -> None:
        self.is_invalid = True


R = TypeVar("R", bound=CacheEntry)


class LruCache(Generic[R]):
    """A cache that evicts the least recently used entries first, across all kinds of entries."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.evicted = 0
        self._entries: OrderedDict[Hashable, R] = OrderedDict()
        # A period begins with each read of the change feed.
        self._period = 0
        self._covered_period = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: Hashable, *, now: float) -> R | None:
        """Return an entry and mark it as used; None if there is none. `now` is a boot-clock time."""
        entry = self._entries.get(name)
        if entry is not None and now - entry.used_at > ORDER_SECONDS:
            entry.used_at = now
            self._entries.move_to_end(name)
        return entry

    def peek(self, name: Hashable) -> R | None:
        """Return an entry without marking it as used; None if there is none."""
        return self._entries.get(name)

    def list_names(self) -> Iterable[Hashable]:
        return self._entries.keys()

    def put(self, name: Hashable, entry: R) -> None:
        """Add an entry, and invalidate the previous one of that name."""
        self.drop(name)
        entry.added_in = self._period
        self._entries[name] = entry
        self.bytes += entry.size_bytes
        self._evict()

    def grow(self, name: Hashable, entry: R, size_bytes: int) -> None:
        """Record that an entry became larger by that many bytes."""
        entry.size_bytes += size_bytes
        if self._entries.get(name) is entry:
            self.bytes += size_bytes
            self._evict()

    def drop(self, name: Hashable) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._invalidate(entry)

    def begin_period(self) -> int:
        """Begin a period before a read of the change feed is sent, and return its number."""
        self._period += 1
        return self._period

    def cover(self, period: int) -> None:
        """Record that a read of the change feed covers the entries that were added before that period."""
        self._covered_period = period

    def is_covered(self, entry: R) -> bool:
        return entry.added_in < self._covered_period

    def drop_uncovered(self) -> None:
        """Drop the entries that no read of the change feed covers."""
        for name in [name for name, entry in self._entries.items() if not self.is_covered(entry)]:
            self.drop(name)

    def clear(self) -> None:
        for entry in self._entries.values():
            entry.invalidate()
        self._entries.clear()
        self.bytes = 0

    def _evict(self) -> None:
        while self.bytes > self.limit_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._invalidate(oldest)
            self.evicted += 1

    def _invalidate(self, entry: R) -> None:
        entry.invalidate()
        self.bytes -= entry.size_bytes
