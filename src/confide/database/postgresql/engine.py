"""PostgreSQL engine: a connection pool with a circuit breaker. Each new connection is checked once."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import monotonic_ns
from typing import Any, NamedTuple, cast

import asyncpg

from confide.caching.stamps import SlotChange, Stamps
from confide.context import compute_remaining_seconds
from confide.database.engine import T, Transaction, statement
from confide.database.model import RowBatch, Rows
from confide.database.postgresql.errors import (
    DRIVER_ERRORS,
    is_connection_lost,
    is_full,
    is_read_only,
    translate_connect_failure,
    translate_error,
)
from confide.database.postgresql.pooler import PoolerCheck
from confide.database.postgresql.session import set_up_session
from confide.database.postgresql.transaction import Connection, fetch, fetch_and_stamp, run_transaction
from confide.database.seen_commits import SeenChange, SeenCommits
from confide.database.storage import NEEDED_BYTES, StorageState
from confide.errors import Busy, DatabaseFull, DatabaseReadOnly, DatabaseUnavailable, SessionsShared
from confide.postgresql_client.connector import ConnectFailed, Connector, OpenConnection
from confide.telemetry.io_log import NO_IO_LOG, IoLog, measure, record_failure

# Calls fail at once for this long after the database did not respond.
UNAVAILABLE_SECONDS = 0.5
# After the server refused a connection because it has too many, the pool opens none for this long.
FULL_SECONDS = 1.0
# A healthy database responds within this time.
HEALTHY_SECONDS = 0.5
BATCH_SIZE = 500
# The largest part of a save is such a row. It is rolled back, and vacuum frees its space.
PROBE = "/* store.probe */ INSERT INTO changes (kind, body, saved_at) VALUES ('probe', $1, 0)"


class _ProbeSucceeded(Exception):
    """The row of a probe was written, and is rolled back."""


class _Idle(NamedTuple):
    """A connection that no call uses, and when it last responded (`time.monotonic`)."""

    connection: Connection
    responded_at: float


class PostgresqlEngine:
    """A pool of connections that reuses the last used connection first.

    After a failure, calls fail at once for a short time instead of waiting for the database. Then one call tries to
    connect, and the others still fail at once until it has succeeded.
    """

    name = "postgresql"

    def __init__(
        self,
        dsn: str,
        *,
        stamps: Stamps,
        size: int = 8,
        check_connection: Callable[[Connection], Awaitable[None]] | None = None,
        seen: SeenCommits | None = None,
        io: IoLog = NO_IO_LOG,
    ) -> None:
        self.io = io
        self._stamps = stamps
        self.storage = StorageState()
        # Where transactions record the changes that they committed.
        self._seen = seen
        self._connector = Connector(
            dsn, set_up=self._set_up, measure=lambda opening: measure(self.io, "connect", opening)
        )
        self._check_connection = check_connection
        self._pooler = PoolerCheck()
        # The schema of the tables, which the first connection finds.
        self._schema: str | None = None
        self._idle: list[_Idle] = []
        self._slots = asyncio.Semaphore(size)
        self._is_unavailable = False
        self._outages = 0
        # Counts the servers of later timelines that were found.
        self._failovers = 0
        self._unavailable_until = 0.0
        self._reason = DatabaseUnavailable()
        # Calls that open a connection.
        self._connecting = 0
        # Open connections of the pool, used or idle.
        self._open = 0
        self._full_until = 0.0
        # Calls that wait for a connection of another call, because the server accepts no more.
        self._waiting: deque[asyncio.Future[None]] = deque()
        # When the database last responded to any call.
        self._responded_at = 0.0
        self._is_closed = False

    async def close(self) -> None:
        self._is_closed = True
        self.close_idle()

    @asynccontextmanager
    async def acquire_connection(self, *, has_deadline: bool = True) -> AsyncIterator[Connection]:
        """Borrow a connection. Raises `DatabaseUnavailable`, or `Busy` if all are in use until the deadline."""
        left = await self._acquire_slot(compute_remaining_seconds() if has_deadline else None)
        began = time.monotonic()
        try:
            async with asyncio.timeout(left), self._borrow() as connection:
                yield connection
        except DRIVER_ERRORS as error:
            translated = self._translate_error(error, left, began=began)
            if translated is error:
                raise
            raise translated from error
        finally:
            self._slots.release()

    def _translate_error(self, error: Exception, left: float | None, *, began: float) -> Exception:
        """Translate a driver error of a call that began at `began` with this number of seconds left."""
        # A timeout with little time left does not mean that the database is unavailable.
        is_late = isinstance(error, TimeoutError) and left is not None and left < HEALTHY_SECONDS
        if is_read_only(error):
            return self.reject_read_only()
        translated = translate_error(error)
        if isinstance(translated, DatabaseFull):
            self.storage.record(translated)
        if isinstance(translated, SessionsShared):
            self._mark_unavailable(translated)
        elif isinstance(translated, DatabaseUnavailable) and is_connection_lost(error) and not is_late:
            self._record_failure(translated, began=began)
        return translated

    def _record_failure(self, reason: DatabaseUnavailable, *, began: float) -> None:
        """Record that a call that began at `began` found the database unavailable."""
        if began < self._responded_at:
            # The database has answered since then, so only connections from before can be broken.
            self.close_idle(unused_since=began)
        else:
            self._mark_unavailable(reason)

    async def _acquire_slot(self, left: float | None) -> float | None:
        """Wait for a free connection slot; returns the seconds left afterwards."""
        self._require_available()
        if not self._slots.locked():
            await self._slots.acquire()  # without the cost of a timeout
            return left
        began = monotonic_ns()
        try:
            async with asyncio.timeout(left):
                await self._slots.acquire()
        except BaseException as error:
            record_failure(self.io, "wait connection", began, error)
            if isinstance(error, TimeoutError):
                raise Busy(retry_after_seconds=1) from None
            raise
        self.io.record("wait connection", began)
        try:
            self._require_available()
        except DatabaseUnavailable:
            self._slots.release()
            raise
        return None if left is None else max(0.0, left - (monotonic_ns() - began) / 1e9)

    def _require_available(self) -> None:
        if self._is_unavailable and (self._connecting or time.monotonic() < self._unavailable_until):
            raise type(self._reason)(str(self._reason))

    @asynccontextmanager
    async def _borrow(self) -> AsyncIterator[Connection]:
        connection = self._pop_idle() or await self._connect_new()
        outages, failovers = self._outages, self._failovers
        is_usable = False
        try:
            yield connection
            is_usable = True
            self._require_same_server(failovers)
        except Exception:
            # After a rollback the connection is usable again.
            is_usable = not connection.is_in_transaction()
            raise
        finally:
            if not is_usable:
                connection.terminate()
            self._release(connection, outages)

    def _pop_idle(self) -> Connection | None:
        while self._idle:
            # Skip connections that the server has closed, for example by a restart.
            if not (connection := self._idle.pop().connection).is_closed():
                return connection
            self._open -= 1
        return None

    async def _connect_new(self) -> Connection:
        """Open a connection. While the server accepts no more, wait for one that another call uses."""
        while True:
            if not self._open or time.monotonic() >= self._full_until:
                if (opened := await self._try_connect()) is not None:
                    return opened
            else:
                await measure(self.io, "wait connection", self._wait_for_release())
            if (released := self._pop_idle()) is not None:
                return released

    async def _try_connect(self) -> Connection | None:
        """Open a connection. Return None if the server accepts no more and the pool has others."""
        began = time.monotonic()
        self._connecting += 1
        try:
            connection = await self.connect()
        except DatabaseUnavailable as error:
            if is_full(error) and self._open:
                self._full_until = time.monotonic() + FULL_SECONDS
                return None
            if isinstance(error, DatabaseReadOnly | SessionsShared):
                self._mark_unavailable(error)
            else:
                self._record_failure(error, began=began)
            self._wake_next()
            raise
        except BaseException:
            self._wake_next()
            raise
        finally:
            self._connecting -= 1
        self._open += 1
        return connection

    async def _wait_for_release(self) -> None:
        """Wait in a queue until a call returns or loses its connection."""
        released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(released)
        try:
            await released
        except asyncio.CancelledError:
            if released.done():
                self._wake_next()
            raise

    def _wake_next(self) -> None:
        """Let the first call of the queue take a connection or open one. Each of them wakes the next one in turn."""
        while self._waiting:
            if not (released := self._waiting.popleft()).done():
                released.set_result(None)
                return

    async def query(self, sql: str, *args: Any) -> Rows:
        return await self._run(sql, args, fetch)

    async def execute(self, sql: str, *args: Any, changes: Sequence[SlotChange] = ()) -> Rows:
        run = partial(fetch_and_stamp, stamps=self._stamps, changes=changes) if changes else fetch
        return await self._run(sql, args, run)

    async def confirm(self, slot: int) -> None:
        await self._stamps.compare_and_stamp([SlotChange(slot)])

    async def _run(self, sql: str, args: tuple[Any, ...], run: Callable[..., Awaitable[Rows]]) -> Rows:
        """Run one statement without context managers, because every read and save uses this path."""
        left = await self._acquire_slot(compute_remaining_seconds())
        began = time.monotonic()
        try:
            connection = self._pop_idle()
            if connection is None:
                async with asyncio.timeout(left), self._borrow() as new:
                    return await run(self.io, new, sql, args)
            outages, failovers = self._outages, self._failovers
            try:
                rows = await run(self.io, connection, sql, args, seconds=left)
            except BaseException as error:
                if not isinstance(error, asyncpg.PostgresError):
                    # Not `close`, which sends a cancel request. A commit that waits for its standby would then count as
                    # done, although only this server has it.
                    connection.terminate()
                raise
            finally:
                self._release(connection, outages)
        except DRIVER_ERRORS as error:
            translated = self._translate_error(error, left, began=began)
            if translated is error:
                raise
            raise translated from error
        else:
            self._require_same_server(failovers)
            return rows
        finally:
            self._slots.release()

    async def search(self, sql: str, *args: Any) -> Rows:
        return await self.query(sql, *args)

    def _release(self, connection: Connection, outages: int) -> None:
        """Make a connection idle that was taken after this number of outages. A later outage affects it too."""
        if connection.is_closed() or self._is_closed or outages != self._outages:
            connection.terminate()
            self._open -= 1
        else:
            self._responded_at = time.monotonic()
            self._idle.append(_Idle(connection, self._responded_at))
        if self._waiting:
            self._wake_next()

    async def transact(self, work: Transaction[T]) -> T:
        return await self._transact(work, has_deadline=True)

    async def transact_long(self, work: Transaction[T]) -> T:
        """Run a transaction without a time limit, for migrations and restores on the host."""
        return await self._transact(work, has_deadline=False)

    async def _transact(self, work: Transaction[T], *, has_deadline: bool) -> T:
        async with self.acquire_connection(has_deadline=has_deadline) as connection:
            epoch_id = "" if self._seen is None else self._seen.epoch.id
            appended: list[SeenChange] = []
            result = await run_transaction(self.io, connection, work, stamps=self._stamps, appended=appended)
        if self._seen is not None:
            self._seen.add(appended, epoch_id=epoch_id)
        return result

    async def check_storage(self) -> None:
        """Raise `DatabaseFull` if a write failed for lack of space and there is none yet."""
        await self.storage.check(self._probe_storage)

    async def _probe_storage(self) -> None:
        with suppress(_ProbeSucceeded):
            await self.transact(_write_and_fail())

    def _require_same_server(self, failovers: int) -> None:
        """Raise `DatabaseUnavailable` if a failover was found during a call: an old primary may have answered it."""
        if failovers != self._failovers:
            raise DatabaseUnavailable("The database failed over during the call.")

    async def stream(self, statements: Sequence[str]) -> AsyncIterator[RowBatch]:
        async with (
            self.acquire_connection(has_deadline=False) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            for number, sql in enumerate(statements):
                cursor = await connection.cursor(sql)
                while batch := await cursor.fetch(BATCH_SIZE):
                    yield RowBatch(number, cast("Rows", batch))

    async def connect(self) -> Connection:
        """Open and check a connection outside the pool; the caller must close it. Raises `DatabaseUnavailable`."""
        try:
            connection = await self._connector.connect()
        except ConnectFailed as failed:
            raise translate_connect_failure(failed) from failed
        self.record_success()
        return connection

    async def _set_up(self, connection: Connection, open_another: OpenConnection) -> None:
        await measure(self.io, "find backend", self._pooler.check_new(connection, open_another))
        self._schema = await measure(self.io, "set up session", set_up_session(connection, schema=self._schema))
        if self._check_connection is not None:
            await measure(self.io, "greet", self._check_connection(connection))

    def leave_old_primary(self) -> None:
        """Leave all connections that are open, because a server of a later timeline was found."""
        self._failovers += 1
        self._outages += 1
        self.close_idle()

    async def check_session(self, connection: Connection) -> None:
        """Check that a connection still has the session that was set up. Raises `SessionsShared`."""
        try:
            await self._pooler.check_open(connection)
        except SessionsShared as error:
            self._mark_unavailable(error)
            raise

    def record_success(self) -> None:
        """Record that the database responded, so that calls no longer fail at once."""
        self._is_unavailable = False
        self._responded_at = time.monotonic()

    def reject_read_only(self) -> DatabaseReadOnly:
        """Stop using the server, because it cannot store. Return the error to raise."""
        error = DatabaseReadOnly()
        self._mark_unavailable(error)
        return error

    def close_idle(self, *, unused_since: float = math.inf) -> None:
        """Close the idle connections that have not responded since then."""
        kept = []
        for idle in self._idle:
            if idle.responded_at >= unused_since:
                kept.append(idle)
            else:
                idle.connection.terminate()
                self._open -= 1
        self._idle = kept

    def _mark_unavailable(self, reason: DatabaseUnavailable) -> None:
        """Let calls fail at once for a short time. The failure affects idle connections too, so close them."""
        self._is_unavailable, self._reason = True, reason
        self._outages += 1
        self._unavailable_until = time.monotonic() + UNAVAILABLE_SECONDS
        self.close_idle()


def _write_and_fail() -> Transaction[None]:
    yield statement(PROBE, secrets.token_bytes(NEEDED_BYTES))
    raise _ProbeSucceeded
