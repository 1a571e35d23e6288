"""Format and parse positions of the change log. They are opaque to clients and belong to one epoch."""

from __future__ import annotations

import re

from confide.changes.errors import PositionGone
from confide.changes.model import Position
from confide.errors import InvalidCursor

_POSITION = re.compile(r"([0-9a-f]{16})\.(?:([0-9]{1,20})\.)?([0-9]{1,19})")
START = "0"
MAX_NUMBER = 2**63 - 1


def format_position(epoch: str, position: Position, *, has_xid: bool) -> str:
    """Format a position: `<epoch>.<xid>.<id>`, or `<epoch>.<id>` on an engine without transaction IDs."""
    return f"{epoch}.{position.xid}.{position.id}" if has_xid else f"{epoch}.{position.id}"


def parse_position(text: str, epoch: str, *, has_xid: bool) -> Position:
    """Parse a position. Raises `PositionGone` for another epoch and `InvalidCursor` for any other text."""
    if text == START:
        return Position(0, 0)
    parts = _POSITION.fullmatch(text)
    if parts is None or (parts[1] == epoch and (parts[2] is not None) != has_xid):
        raise InvalidCursor
    if parts[1] != epoch:
        raise PositionGone
    position = Position(int(parts[2] or 0), int(parts[3]))
    if max(position) > MAX_NUMBER:
        raise InvalidCursor
    return position
