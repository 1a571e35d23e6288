"""What the store does alike on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from confide.domain.audits import AuditEntry
from confide.ports import Clock, Row
from confide.storage import dumps, migrations
from confide.storage.clock import now
from confide.storage.transactions import AUDIT, Statement, Transaction, audit_args

if TYPE_CHECKING:
    from confide.storage.postgres_engine import PostgresEngine
    from confide.storage.sqlite_engine import SqliteEngine

NOTHING_THERE = "There is no store of Confide's yet: confide serve or confide migrate makes one."


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
        await self._engine.rows("/* store.ping */ SELECT 1")

    async def note(self, entry: AuditEntry, *, mac: bytes) -> None:
        await self._engine.transact(_note(entry, mac))

    def dump(self) -> AsyncIterator[tuple[str, Row]]:
        return dumps.dump(self._engine)

    async def load(self, rows: Iterator[tuple[str, Row]]) -> None:
        await self._engine.transact_long(dumps.load(rows, self._home(), now=self.clock(), engine=self._engine.name))

    async def is_empty(self) -> bool:
        ((is_empty,),) = await self._engine.rows(dumps.IS_EMPTY)
        return bool(is_empty)


def _note(entry: AuditEntry, mac: bytes) -> Transaction[None]:
    yield Statement(AUDIT, (*audit_args(entry, mac=mac), None))
