"""What a process remembers, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from confide.clock import boottime

# What remembering costs beside the objects themselves: a place in the table and its share of the empty ones,
# the links that keep the order, what the allocator rounds up. `make bench` compares with what a process takes.
PLACE_BYTES = 240
# The order of use is kept to that precision: what is used all the time need not be moved each time.
ORDER_SECONDS = 1.0


class MemoryEntry:
    """Something remembered. Once it is over, forgotten or replaced, whoever still holds it must not use it."""

    __slots__ = ("is_over", "size", "used_at")

    def __init__(self, size: int) -> None:
        self.is_over = False
        self.size = size + PLACE_BYTES
        self.used_at = boottime()

    def end(self) -> None:
        self.is_over = True


R = TypeVar("R", bound=MemoryEntry)


class BoundedMemory(Generic[R]):
    """Whatever was used longest ago goes first, whatever it is."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.evicted = 0
        self._held: OrderedDict[Hashable, R] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, name: Hashable, *, now: float) -> R | None:
        """What is remembered under a name, now used last."""
        found = self._held.get(name)
        if found is not None and now - found.used_at > ORDER_SECONDS:
            found.used_at = now
            self._held.move_to_end(name)
        return found

    def names(self) -> Iterable[Hashable]:
        return self._held.keys()

    def put(self, name: Hashable, value: R) -> None:
        """Remember a value in place of what was there."""
        self.drop(name)
        self._held[name] = value
        self.bytes += value.size
        self._keep_within()

    def grow(self, name: Hashable, value: R, size: int) -> None:
        """Something that may still be remembered became larger by that many bytes."""
        value.size += size
        if self._held.get(name) is value:
            self.bytes += size
            self._keep_within()

    def drop(self, name: Hashable) -> None:
        found = self._held.pop(name, None)
        if found is not None:
            self._end(found)

    def clear(self) -> None:
        for held in self._held.values():
            held.end()
        self._held.clear()
        self.bytes = 0

    def _keep_within(self) -> None:
        while self.bytes > self.limit_bytes:
            _, oldest = self._held.popitem(last=False)
            self._end(oldest)
            self.evicted += 1

    def _end(self, value: R) -> None:
        value.end()
        self.bytes -= value.size
