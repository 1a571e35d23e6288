"""Access statistics as values."""

from __future__ import annotations

from typing import NamedTuple

from confide.names import Key


class ReadCount(NamedTuple):
    """Reads of one config with one token."""

    key: Key
    token_id: int
    last_read_at: int
    reads: int


class AccessSummary(NamedTuple):
    """What the usage ledger tells of one token; login and label if it is still there."""

    token_id: int
    login: str | None
    label: str | None
    last_read_at: int
    reads: int
