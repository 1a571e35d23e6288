"""PostgreSQL: connections of our own, each greeted once, and a short memory of the store being away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic_ns
from typing import Any, cast

import asyncpg

from confide.context import remaining_seconds
from confide.database.engine import T, Transaction, UniqueTaken
from confide.database.model import Rows
from confide.database.postgresql.transaction import Connection, fetch, run_transaction
from confide.errors import Busy, DatabaseUnavailable
from confide.telemetry.operations import SILENT, IoLog, measure, note_failure

CONNECT_SECONDS = 1.5
# How long calls are refused at once after the store did not answer.
AWAY_SECONDS = 0.5
# What a store that is well answers in.
PATIENT_SECONDS = 0.5
PORTION = 500

# What the driver raises, whatever it means.
_ANY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
_AWAY = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)
_REFUSED_FOR_NOW = (
    asyncpg.InsufficientResourcesError,  # disk full, too many connections, out of memory
    asyncpg.OperatorInterventionError,  # shutting down, starting up
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,  # a deadlock: whoever asks again has the other turn
)


class PostgresqlEngine:
    """A stack of connections; the one used last is used next."""

    name = "postgres"

    def __init__(
        self,
        dsn: str,
        *,
        size: int = 8,
        greet: Callable[[Connection], Awaitable[None]] | None = None,
        io: IoLog = SILENT,
    ) -> None:
        self._dsn = dsn
        self.io = io
        self._greet = greet
        self._idle: list[Connection] = []
        self._places = asyncio.Semaphore(size)
        self._away_until = 0.0
        self._is_closed = False

    async def close(self) -> None:
        self._is_closed = True
        while self._idle:
            self._idle.pop().terminate()

    @asynccontextmanager
    async def connection(self, *, is_hurried: bool = True) -> AsyncIterator[Connection]:
        """Borrow a connection; raises `DatabaseUnavailable` or, where all stay lent, `Busy` in time."""
        left = await self._place(remaining_seconds() if is_hurried else None)
        try:
            async with asyncio.timeout(left), self._borrowed() as connection:
                yield connection
        except _ANY as error:
            meaning = self._translated(error, left)
            if meaning is error:
                raise
            raise meaning from error
        finally:
            self._places.release()

    def _translated(self, error: Exception, left: float | None) -> Exception:
        """What an error of the driver means to whoever asked, with the time that was left when they did."""
        if isinstance(error, asyncpg.UniqueViolationError):
            return UniqueTaken(str(error))
        if isinstance(error, _REFUSED_FOR_NOW):
            return DatabaseUnavailable(str(error))
        if isinstance(error, ValueError) or not isinstance(error, _AWAY):
            return error  # an argument that the driver cannot encode: a bug of ours
        # A request that came here with little time left says nothing about the store.
        if not isinstance(error, TimeoutError) or left is None or left >= PATIENT_SECONDS:
            self._away_until = time.monotonic() + AWAY_SECONDS
            self._drop_idle()
        return DatabaseUnavailable(str(error))

    async def _place(self, left: float | None) -> float | None:
        """Wait for a place among those who use the store; returns what is then left of the time."""
        self._must_not_be_away()
        if not self._places.locked():
            await self._places.acquire()  # at once, without the price of a time limit
            return left
        began = monotonic_ns()
        try:
            async with asyncio.timeout(left):
                await self._places.acquire()
        except BaseException as error:
            note_failure(self.io, "wait connection", began, error)
            if isinstance(error, TimeoutError):
                raise Busy(retry_after_seconds=1) from None
            raise
        self.io.note("wait connection", began)
        try:
            self._must_not_be_away()
        except DatabaseUnavailable:
            self._places.release()
            raise
        return None if left is None else max(0.0, left - (monotonic_ns() - began) / 1e9)

    def _must_not_be_away(self) -> None:
        if time.monotonic() < self._away_until:
            raise DatabaseUnavailable

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Connection]:
        connection = self._sound_one() or await self._new_one()
        is_sound = False
        try:
            yield connection
            is_sound = True
        except Exception:
            # A refusal inside a transaction leaves the connection whole once that is undone.
            is_sound = not connection.is_in_transaction()
            raise
        finally:
            if not is_sound:
                connection.terminate()
            self._take_back(connection)

    def _sound_one(self) -> Connection | None:
        while self._idle:
            # What a server that went away has closed says nothing about the one that is there now.
            if not (connection := self._idle.pop()).is_closed():
                return connection
        return None

    async def _new_one(self) -> Connection:
        try:
            return await self.connect()
        except DatabaseUnavailable:
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise

    async def query(self, sql: str, *args: Any) -> Rows:
        """As the contract says, on the shortest way: every read and every save comes through here."""
        left = await self._place(remaining_seconds())
        try:
            connection = self._sound_one()
            if connection is None:
                async with asyncio.timeout(left), self._borrowed() as new:
                    return await fetch(self.io, new, sql, args)
            try:
                return await fetch(self.io, connection, sql, args, seconds=left)
            except BaseException as error:
                if not isinstance(error, asyncpg.PostgresError):
                    connection.terminate()
                raise
            finally:
                self._take_back(connection)
        except _ANY as error:
            meaning = self._translated(error, left)
            if meaning is error:
                raise
            raise meaning from error
        finally:
            self._places.release()

    async def search(self, sql: str, *args: Any) -> Rows:
        return await self.query(sql, *args)

    async def execute(self, sql: str, *args: Any) -> Rows:
        return await self.query(sql, *args)

    def _take_back(self, connection: Connection) -> None:
        if connection.is_closed() or self._is_closed:
            connection.terminate()
        else:
            self._idle.append(connection)

    async def transact(self, work: Transaction[T]) -> T:
        async with self.connection() as connection:
            return await run_transaction(self.io, connection, work)

    async def transact_long(self, work: Transaction[T]) -> T:
        """As `transact`, for work on the host that may take its time: a migration, a restored backup."""
        async with self.connection(is_hurried=False) as connection:
            return await run_transaction(self.io, connection, work)

    async def stream(self, statements: Sequence[str]) -> AsyncIterator[tuple[int, Rows]]:
        async with (
            self.connection(is_hurried=False) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            for number, sql in enumerate(statements):
                cursor = await connection.cursor(sql)
                while portion := await cursor.fetch(PORTION):
                    yield number, cast("Rows", portion)

    async def connect(self) -> Connection:
        """Make a connection and greet it; it is the caller's own. Raises `DatabaseUnavailable`."""
        try:
            connection = await measure(self.io, "connect", asyncpg.connect(self._dsn, timeout=CONNECT_SECONDS))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, OSError) as error:
            raise DatabaseUnavailable(f"The database cannot be reached: {error}") from error
        if self._greet is not None:
            try:
                await measure(self.io, "greet", self._greet(connection))
            except BaseException:
                connection.terminate()
                raise
        return connection

    def note_answer(self) -> None:
        """The store has just answered somebody: it is there, whatever it was a moment ago."""
        self._away_until = 0.0

    def _drop_idle(self) -> None:
        # What broke one connection broke the others too; new ones are greeted again.
        while self._idle:
            self._idle.pop().terminate()
