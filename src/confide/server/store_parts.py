"""What the store does alike on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from confide.audit.model import AuditEntry
from confide.clock import Clock, now
from confide.database import dump as dumps
from confide.database import schema
from confide.database.engine import Statement, Transaction
from confide.database.log import AUDIT, audit_values
from confide.database.model import Row

if TYPE_CHECKING:
    from confide.database.postgresql.engine import PostgresEngine
    from confide.database.sqlite.engine import SqliteEngine

NOTHING_THERE = "There is no store of Confide's yet: confide serve or confide migrate makes one."


class StoreParts:
    """What both stores do alike, each through its own engine."""

    _engine: SqliteEngine | PostgresEngine
    _home: Callable[[], str]
    clock: Clock = staticmethod(now)

    async def migrate(self) -> list[str]:
        return await self._engine.transact_long(schema.migrate(schema.known(self._engine.name), now=self.clock()))

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
    yield Statement(AUDIT, (*audit_values(entry, mac=mac), None))
