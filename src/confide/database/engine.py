"""The contract of the database engines.

A transaction is a generator. It yields steps, and the engine sends it the rows of each step.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, TypeVar

from confide.caching.stamps import SlotChange
from confide.database.model import Row, RowBatch, Rows

T = TypeVar("T")

UNNAMED = "sql"
SCRIPT = "sql script"
_NAME = re.compile(r"/\* ([a-z_.]+) \*/")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement with its `$n` arguments."""

    sql: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class AppendChange:
    """Insert one row of the change log and return its ID. After the commit the engine remembers the change.

    The statement ends with `RETURNING id`. `mac` is that of the audit entry of the change.
    """

    sql: str
    args: tuple[Any, ...]
    mac: bytes


@dataclass(frozen=True, slots=True)
class Lock:
    """Acquire the lock of that name. It is held until the transaction ends."""

    name: str


@dataclass(frozen=True, slots=True)
class TableLock:
    """Wait for other transactions that write to the table, and block new ones until this one ends."""

    table: str


@dataclass(frozen=True, slots=True)
class Script:
    """A migration: several statements without arguments."""

    sql: str


@dataclass(frozen=True, slots=True)
class Many:
    """One statement, once for each row of arguments."""

    sql: str
    rows: Sequence[Row]


Step: TypeAlias = Statement | AppendChange | Lock | TableLock | Script | Many | SlotChange
Transaction: TypeAlias = Generator[Step, Rows, T]


class UniqueTaken(Exception):
    """A unique index already has the row. The transaction was rolled back."""


class Engine(Protocol):
    """The operations that SQLite and PostgreSQL share."""

    name: str

    async def query(self, sql: str, *args: Any) -> Rows:
        """Run one statement and return its rows. Raises `DatabaseUnavailable` at the deadline of the request.

        On PostgreSQL it may write, in a transaction of its own. On SQLite it only reads: use `execute` to write.
        """

    async def search(self, sql: str, *args: Any) -> Rows:
        """Run a query that may scan many rows, without blocking other callers for long."""

    async def execute(self, sql: str, *args: Any, changes: Sequence[SlotChange] = ()) -> Rows:
        """Run one statement that writes, in a transaction of its own, and return its rows. Stamp the changed slots."""

    async def transact(self, work: Transaction[T]) -> T:
        """Run a transaction. Commit when its generator returns, roll back when it raises.

        Slots that it changes are stamped before this returns, and also if the outcome of the commit is unknown.
        """

    async def confirm(self, slot: int) -> None:
        """Stamp a slot before an answer confirms what a query read.

        The process that committed it may have died before it stamped the slot.
        """

    def stream(self, statements: Sequence[str]) -> AsyncIterator[RowBatch]:
        """Run queries in one snapshot. Yields the rows of each in batches."""


def run_one(sql: str, args: tuple[Any, ...], changes: Sequence[SlotChange] = ()) -> Transaction[Rows]:
    """Run a single statement as a transaction."""
    for change in changes:  # noqa: UP028 - the engine sends rows, and the iterator of a list receives none
        yield change
    return (yield Statement(sql, args))


def statement(sql: str, *args: Any) -> Statement:
    return Statement(sql, args)


@lru_cache(maxsize=1_024)
def find_operation(sql: str) -> str:
    """Return the operation name of a statement for I/O events, from its leading comment."""
    found = _NAME.match(sql)
    return f"sql {found[1]}" if found else UNNAMED
