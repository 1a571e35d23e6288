"""One database as a whole: its schema, identity, dump and load. It knows tables, but no feature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

from confide.clock import Clock
from confide.database import dump, identity, schema
from confide.database.engine import Engine, T, Transaction
from confide.database.identity import EntrySigner, Loss
from confide.database.model import DatabaseIdentity, EpochStatus, TableRow
from confide.database.signed_rows import RowSigner
from confide.epoch import CurrentEpoch, Epoch
from confide.errors import DatabaseUnavailable

NO_SCHEMA = "The database has no Confide schema, or an older one. Run confide serve or confide migrate first."


class HostEngine(Engine, Protocol):
    """An engine that can also run long transactions, for commands on the host."""

    async def transact_long(self, work: Transaction[T]) -> T:
        """Run a transaction without a time limit."""


class Database(ABC):
    """One database.

    `chain_audit_entries` runs in the transaction that begins a new epoch, before that resets the order of the entries.
    """

    def __init__(
        self,
        engine: HostEngine,
        epoch: CurrentEpoch,
        rows: RowSigner,
        *,
        chain_audit_entries: Callable[[], Transaction[None]],
        clock: Clock,
    ) -> None:
        self._host_engine = engine
        self._epoch = epoch
        self._rows = rows
        self._chain_audit_entries = chain_audit_entries
        self._clock = clock

    @property
    def host_engine(self) -> HostEngine:
        """The engine, for long transactions on the host."""
        return self._host_engine

    @abstractmethod
    async def connect(self) -> None:
        """Connect without checking the schema. Raises `DatabaseUnavailable` or `UnsafeDurability`."""

    @abstractmethod
    async def open(self) -> DatabaseIdentity:
        """Connect and determine the identity of the database. The schema must exist."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""

    @abstractmethod
    async def check_storage(self) -> None:
        """Raise `DatabaseFull` or `DatabaseReadOnly` if the database can be read but cannot store."""

    @abstractmethod
    def locate(self) -> str:
        """Return a text that identifies the place of the database. It differs after a move or a copy."""

    @abstractmethod
    def sign_losses(self, sign: EntrySigner) -> None:
        """Begin a new epoch from now on if the database loses commits, with an audit entry that `sign` signs."""

    async def begin_epoch_after_loss(self, loss: Loss, sign: EntrySigner) -> Epoch:
        """Begin a new epoch, because the database lacks commits that are known from elsewhere."""
        has_xid = self._host_engine.name == "postgresql"
        work = identity.begin_epoch_after_loss(
            loss, self._epoch.value, self._rows, now=self._clock(), has_xid=has_xid, sign=sign
        )
        epoch = await self._host_engine.transact_long(work)
        self._epoch.adopt(epoch)
        return epoch

    async def migrate(self) -> list[str]:
        """Update the schema under a lock and return the names of the applied migrations. Raises `NewerSchema`."""
        engine = self._host_engine
        return await engine.transact_long(schema.migrate(schema.list_migrations(engine.name), now=self._clock()))

    async def require_schema(self) -> None:
        """Raise `DatabaseUnavailable` unless the schema is that of this release."""
        engine = self._host_engine
        number = await engine.transact_long(schema.read_number())
        if number != schema.get_schema_number(engine.name):
            raise DatabaseUnavailable(NO_SCHEMA)

    async def ping(self) -> None:
        """Raise `DatabaseUnavailable` unless the database responds."""
        await self._host_engine.query("/* store.ping */ SELECT 1")

    def dump(self) -> AsyncIterator[TableRow]:
        """Read every row of every backed-up table in one snapshot."""
        return dump.dump(self._host_engine)

    async def load(self, rows: Iterator[TableRow]) -> None:
        """Fill an empty database with the rows of a dump and begin a new epoch, in one transaction."""
        engine = self._host_engine
        epoch = await engine.transact_long(
            dump.load(
                rows,
                self.locate(),
                self._rows,
                now=self._clock(),
                engine=engine.name,
                chain_audit_entries=self._chain_audit_entries,
            )
        )
        self._epoch.adopt(epoch)

    async def is_empty(self) -> bool:
        ((is_empty,),) = await self._host_engine.query(dump.IS_EMPTY)
        return bool(is_empty)

    def _determine_epoch(self) -> Transaction[EpochStatus]:
        has_xid = self._host_engine.name == "postgresql"
        return identity.determine_epoch(
            self.locate(), self._rows, now=self._clock(), has_xid=has_xid, chain_audit_entries=self._chain_audit_entries
        )
