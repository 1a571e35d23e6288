"""Values that both engines share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DatabaseIdentity:
    """Where a store lives and which life of it this is."""

    epoch: str
    durability: str
    is_unsafe: bool
    has_begun_anew: bool = False
    # Whether positions hold the number of a transaction.
    has_xid: bool = False


Row = Sequence[Any]


Rows = Sequence[Row]
