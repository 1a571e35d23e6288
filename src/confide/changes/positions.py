"""Format and parse positions of the change log. They are opaque to clients and belong to one epoch."""

from __future__ import annotations

import re

from confide.changes.errors import PositionGone
from confide.changes.model import Position
from confide.epoch import CurrentEpoch, Epoch
from confide.errors import InvalidCursor

_POSITION = re.compile(r"([0-9a-f]{16})\.(?:([0-9]{1,20})\.)?([0-9]{1,19})")
START = "0"
MAX_NUMBER = 2**63 - 1
_INVALID = "Invalid position. Use one that the service returned, or 0 for the start of the change log."


class PositionFormat:
    """Formats and parses positions in the current epoch."""

    def __init__(self, epoch: CurrentEpoch, *, has_xid: bool) -> None:
        self._epoch = epoch
        self._has_xid = has_xid

    @property
    def epoch(self) -> Epoch:
        return self._epoch.value

    def format(self, position: Position, *, epoch: Epoch | None = None) -> str:
        """Format a position of the current epoch, or of another one."""
        return format_position((epoch or self._epoch.value).id, position, has_xid=self._has_xid)

    def parse(self, text: str) -> Position:
        """Parse a position. Raises `PositionGone` for another epoch and `InvalidCursor` for any other text."""
        return parse_position(text, self._epoch.value.id, has_xid=self._has_xid)


def format_position(epoch: str, position: Position, *, has_xid: bool) -> str:
    """Format a position: `<epoch>.<xid>.<id>`, or `<epoch>.<id>` on an engine without transaction IDs."""
    return f"{epoch}.{position.xid}.{position.id}" if has_xid else f"{epoch}.{position.id}"


def parse_position(text: str, epoch: str, *, has_xid: bool) -> Position:
    """Parse a position. Raises `PositionGone` for another epoch and `InvalidCursor` for any other text."""
    if text == START:
        return Position(0, 0)
    parts = _POSITION.fullmatch(text)
    if parts is None or (parts[1] == epoch and (parts[2] is not None) != has_xid):
        raise InvalidCursor(_INVALID)
    if parts[1] != epoch:
        raise PositionGone
    position = Position(int(parts[2] or 0), int(parts[3]))
    if max(position) > MAX_NUMBER:
        raise InvalidCursor(_INVALID)
    return position
