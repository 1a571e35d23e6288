"""One database as a whole: schema, identity, dump and load. It knows tables, but no feature."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

from confide.clock import Clock
from confide.database import dump as dumps
from confide.database import identity, schema
from confide.database.engine import Engine, T, Transaction
from confide.database.model import DatabaseIdentity, Row, Settled

NO_STORE = "The database has no Confide store. Run confide serve or confide migrate to create one."


class HostEngine(Engine, Protocol):
    """An engine that also runs long transactions, for commands on the host."""

    async def transact_long(self, work: Transaction[T]) -> T:
        """Run a transaction without a time limit."""


class Database:
    """One database. `seal_log` runs in the transaction that begins a new epoch, before positions lose their meaning."""

    def __init__(
        self, engine: HostEngine, *, chain_audit_entries: Callable[[], Transaction[None]], clock: Clock
    ) -> None:
        self._host_engine = engine
        self._seal_log = chain_audit_entries
        self._clock = clock

    async def connect(self) -> None:
        """Connect, whatever the schema; raises `DatabaseUnavailable` or `UnsafeDurability`."""
        raise NotImplementedError

    async def open(self) -> DatabaseIdentity:
        """Connect and read the identity of the database. The schema must exist."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def locate(self) -> str:
        """Return a text that differs if the database is moved or copied to another place."""
        raise NotImplementedError

    async def migrate(self) -> list[str]:
        """Update the schema under a lock and return the applied migrations; raises `NewerSchema`."""
        engine = self._host_engine
        return await engine.transact_long(schema.migrate(schema.known(engine.name), now=self._clock()))

    async def ping(self) -> None:
        await self._host_engine.query("/* store.ping */ SELECT 1")

    def dump(self) -> AsyncIterator[tuple[str, Row]]:
        """Read every row of every table in one snapshot."""
        return dumps.dump(self._host_engine)

    async def load(self, rows: Iterator[tuple[str, Row]]) -> None:
        """Fill an empty database with the rows of a dump and begin a new epoch, in one transaction."""
        engine = self._host_engine
        await engine.transact_long(
            dumps.load(rows, self.locate(), now=self._clock(), engine=engine.name, chain_audit_entries=self._seal_log)
        )

    async def is_empty(self) -> bool:
        ((is_empty,),) = await self._host_engine.query(dumps.IS_EMPTY)
        return bool(is_empty)

    def _settle(self) -> Transaction[Settled]:
        has_xid = self._host_engine.name == "postgres"
        return identity.settle(self.locate(), now=self._clock(), has_xid=has_xid, chain_audit_entries=self._seal_log)
