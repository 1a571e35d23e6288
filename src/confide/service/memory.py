"""What a process remembers, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, NamedTuple

# What remembering costs beside the objects themselves: the place in the table, its share of empty places,
# the links that keep the order. `tools/measure_memory.py` compares with what the process really takes.
PLACE_BYTES = 240


class _Remembered(NamedTuple):
    value: Any
    size: int


class Memory:
    """Whatever was used longest ago goes first, whatever it is: configs, checked tokens, heads of requests."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.evicted = 0
        self._held: OrderedDict[Hashable, _Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, name: Hashable) -> Any:
        """What is remembered under a name, now used last; None if nothing is."""
        found = self._held.get(name)
        if found is None:
            return None
        self._held.move_to_end(name)
        return found.value

    def put(self, name: Hashable, value: Any, *, size: int) -> None:
        """Remember a value of that many bytes, its name included, in place of what was there."""
        self.drop(name)
        size += PLACE_BYTES
        if size > self.limit_bytes:
            return
        self._held[name] = _Remembered(value, size)
        self.bytes += size
        while self.bytes > self.limit_bytes:
            _, oldest = self._held.popitem(last=False)
            self.bytes -= oldest.size
            self.evicted += 1

    def drop(self, name: Hashable) -> None:
        found = self._held.pop(name, None)
        if found is not None:
            self.bytes -= found.size

    def clear(self) -> None:
        self._held.clear()
        self.bytes = 0
