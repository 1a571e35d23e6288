"""The epoch of the database, within which positions and entity tags keep their meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

TAG_CHARACTERS = 8


class Epoch(NamedTuple):
    """One epoch: the time from the first start, a restore or a loss of commits until the next restore or loss."""

    id: str
    # 1 is the first epoch of a database.
    number: int

    @property
    def tag_part(self) -> str:
        """Return the part of an entity tag that names the epoch. Empty in the first one."""
        return "" if self.number == 1 else f"-{self.id[:TAG_CHARACTERS]}"


UNKNOWN_EPOCH = Epoch("", 0)


class CurrentEpoch:
    """The epoch that this process works in. All its parts share this object."""

    def __init__(self) -> None:
        self.value = UNKNOWN_EPOCH
        self._callbacks: list[Callable[[], None]] = []

    def call_on_end(self, callback: Callable[[], None]) -> None:
        """Call back when the epoch has ended and the next one is set. The callback must forget what the old one had."""
        self._callbacks.append(callback)

    def adopt(self, epoch: Epoch) -> bool:
        """Set the epoch. Return whether it replaced another one."""
        if epoch == self.value:
            return False
        is_first = self.value is UNKNOWN_EPOCH
        self.value = epoch
        if not is_first:
            for callback in self._callbacks:
                callback()
        return not is_first
