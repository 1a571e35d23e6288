"""The commits that this process has seen. If the database does not have one of them, it lost commits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from confide.changes.model import Position
from confide.epoch import CurrentEpoch, Epoch

# Commits are lost in the order of the write-ahead log, which is not the order of positions. So the latest change alone
# can be there although an earlier one was lost.
MAX_CHANGES = 1_000


class SeenChange(NamedTuple):
    """A change that was committed, and the MAC of its audit entry. Another change can get the same position later."""

    position: Position
    mac: bytes


class SeenCheckpoint(NamedTuple):
    """A checkpoint of the audit hash chain that was committed."""

    number: int
    link: bytes


class SeenCommits:
    """The latest changes that this process read from the change feed or committed, and the latest checkpoint."""

    def __init__(self, epoch: CurrentEpoch) -> None:
        self._epoch = epoch
        self._macs: dict[Position, bytes] = {}
        self.checkpoint: SeenCheckpoint | None = None
        epoch.call_on_end(self._forget_all)

    def __len__(self) -> int:
        return len(self._macs)

    @property
    def epoch(self) -> Epoch:
        return self._epoch.value

    def list_changes(self) -> list[SeenChange]:
        return [SeenChange(position, mac) for position, mac in self._macs.items()]

    def add(self, changes: Iterable[SeenChange], *, epoch_id: str) -> None:
        """Remember changes that were committed. Ignore those of an epoch that has ended."""
        if epoch_id != self._epoch.value.id:
            return
        for change in changes:
            self._macs[change.position] = change.mac
        while len(self._macs) > MAX_CHANGES:
            del self._macs[next(iter(self._macs))]

    def add_checkpoint(self, checkpoint: SeenCheckpoint, *, epoch: Epoch) -> None:
        if epoch == self._epoch.value:
            self.checkpoint = checkpoint

    def _forget_all(self) -> None:
        self._macs.clear()
        self.checkpoint = None
