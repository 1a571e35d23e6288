"""Values that both engines share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from confide.epoch import Epoch


@dataclass(frozen=True, slots=True)
class DatabaseIdentity:
    """The epoch of a database, and how durable its commits are."""

    epoch: Epoch
    durability: str
    is_unsafe: bool
    is_new_epoch: bool = False
    # Whether a new epoch has begun, because the checkpoint file names commits that the database lacks.
    has_lost_commits: bool = False
    # Whether positions contain a transaction ID.
    has_xid: bool = False


class EpochStatus(NamedTuple):
    """The epoch, and whether it has just begun because the database was moved or restored."""

    epoch: Epoch
    is_new_epoch: bool


# Values of columns, as the drivers return them.
Row: TypeAlias = Sequence[Any]
Rows: TypeAlias = Sequence[Row]


class TableRow(NamedTuple):
    """A row with the name of its table."""

    table: str
    row: Row


class RowBatch(NamedTuple):
    """Rows of one of several queries, with the index of that query."""

    query_index: int
    rows: Rows
