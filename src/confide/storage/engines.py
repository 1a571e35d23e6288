"""The store, on SQLite or on PostgreSQL, chosen by its URL."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from confide.domain.audits import AuditEntry
from confide.ports import Clock, Home, Row, Store, UnsafeDurability
from confide.storage import dumps, migrations
from confide.storage.accounts import Accounts
from confide.storage.homes import settle
from confide.storage.keys import Keys
from confide.storage.sqlite_configs import SqliteConfigs
from confide.storage.sqlite_engine import SqliteEngine
from confide.storage.tokens import Tokens
from confide.storage.transactions import AUDIT, Statement, Transaction, audit_args

if TYPE_CHECKING:
    from confide.storage.postgres_engine import PostgresEngine


def now() -> int:
    return time.time_ns() // 1_000


def open_store(url: str, *, is_unsafe_allowed: bool = False, pool_size: int = 8) -> Store:
    """Make the store that a URL names, not yet connected.

    `sqlite:///path` or `postgresql://user:password@host/name`. With `is_unsafe_allowed` SQLite runs without
    waiting for the disk, and a PostgreSQL that may lose acknowledged saves is accepted.
    """
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        return SqliteStore(Path(url.removeprefix("sqlite:///")), is_unsafe=is_unsafe_allowed)
    if scheme in ("postgresql", "postgres"):
        from confide.storage.postgres_store import PostgresStore  # noqa: PLC0415 - an extra, imported when asked for

        return PostgresStore(url, is_unsafe_allowed=is_unsafe_allowed, pool_size=pool_size)
    raise ValueError("A database URL begins with sqlite:/// or postgresql://.")


class StoreParts:
    """What both stores do alike, each through its own engine."""

    _engine: SqliteEngine | PostgresEngine
    _home: Callable[[], str]
    clock: Clock = staticmethod(now)

    async def migrate(self) -> list[str]:
        return await self._engine.transact_long(
            migrations.migrate(migrations.known(self._engine.name), now=self.clock())
        )

    async def ping(self) -> None:
        await self._engine.rows("SELECT 1")

    async def note(self, entry: AuditEntry, *, mac: bytes) -> None:
        await self._engine.transact(_note(entry, mac))

    def dump(self) -> AsyncIterator[tuple[str, Row]]:
        return dumps.dump(self._engine)

    async def load(self, rows: Iterator[tuple[str, Row]]) -> None:
        await self._engine.transact_long(dumps.load(rows, self._home(), now=self.clock(), engine=self._engine.name))

    async def is_empty(self) -> bool:
        ((is_empty,),) = await self._engine.rows(dumps.IS_EMPTY)
        return bool(is_empty)


class SqliteStore(StoreParts):
    """Everything in one file of the data folder."""

    def __init__(self, path: Path, *, is_unsafe: bool) -> None:
        self._engine: SqliteEngine = SqliteEngine(path, is_unsafe=is_unsafe)
        self.configs = SqliteConfigs(self._engine)
        self.accounts = Accounts(self._engine)
        self.tokens = Tokens(self._engine)
        self.keys = Keys(self._engine)

    async def connect(self) -> None:
        await self._engine.open()

    async def open(self) -> Home:
        await self.connect()
        durability, is_unsafe = self._durability()
        epoch, has_begun_anew = await self._engine.transact(settle(self._home(), now=self.clock(), has_xid=False))
        return Home(epoch, durability, is_unsafe=is_unsafe, has_begun_anew=has_begun_anew)

    async def close(self) -> None:
        await self._engine.close()

    def _home(self) -> str:
        # A file that was put in another's place is another file to the file system.
        return f"inode {self._engine.path.stat().st_ino}"

    def _durability(self) -> tuple[str, bool]:
        reader = self._engine.reader
        synchronous = reader.pragma("synchronous")
        journal = reader.pragma("journal_mode")
        is_unsafe = synchronous < 2 or journal != "wal"  # noqa: PLR2004 - 2 is FULL in SQLite's own numbers
        if is_unsafe and not self._engine.is_unsafe:
            raise UnsafeDurability(f"SQLite runs with synchronous={synchronous}, journal_mode={journal}.")
        return f"SQLite {journal}, synchronous={'FULL' if not is_unsafe else 'OFF'}", is_unsafe


def _note(entry: AuditEntry, mac: bytes) -> Transaction[None]:
    yield Statement(AUDIT, (*audit_args(entry, mac=mac), None))
