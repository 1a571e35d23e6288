"""SQLite engine: reads on the event loop, long searches on a thread, and group commit of writes."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic_ns
from typing import Any

import apsw

from confide.caching.stamps import SlotChange, Stamps
from confide.context import compute_remaining_seconds
from confide.database.engine import T, Transaction, find_operation, run_one
from confide.database.model import Row, RowBatch, Rows
from confide.database.sqlite.errors import translate_failure
from confide.database.sqlite.writer import WRITER, Writer, bind_arguments
from confide.database.storage import NEEDED_BYTES, StorageState
from confide.errors import DatabaseFull, DatabaseReadOnly, DatabaseUnavailable, describe_error
from confide.telemetry.io_log import NO_IO_LOG, IoLog, record_failure

MIN_VERSION = 3_051_003
BATCH_SIZE = 500
# In steps of SQLite's virtual machine: the limit of a search on the event loop, and the interval of cancellation
# checks of a search on the thread.
MAX_LOOP_STEPS, CHECK_STEPS = 1_000_000, 20_000


class SqliteEngine:
    """One database file, with three connections.

    The reader runs short queries on the event loop. The writer and the searcher run on threads of their own.
    """

    name = "sqlite"

    def __init__(self, path: Path, *, stamps: Stamps, is_unsafe: bool, io: IoLog = NO_IO_LOG) -> None:
        self.path = path
        self._stamps = stamps
        self.io = io
        self.is_unsafe = is_unsafe
        self.storage = StorageState()
        self._reader: apsw.Connection | None = None
        self.searcher: apsw.Connection | None = None
        self._search_executor: ThreadPoolExecutor | None = None
        self._writer: Writer | None = None

    async def open(self) -> None:
        """Connect once. Raises `DatabaseUnavailable` if the file cannot be opened."""
        if self._writer is not None:
            return
        if apsw.sqlitelibversion() and _read_sqlite_version() < MIN_VERSION:
            raise DatabaseUnavailable(
                f"SQLite {apsw.sqlite_lib_version()} can corrupt a write-ahead log. Use 3.51.3 or newer."
            )
        _require_writable(self.path)
        try:
            writer = connect(self.path, is_unsafe=self.is_unsafe)
            self._reader = connect(self.path, is_unsafe=self.is_unsafe)
            self._search_executor = ThreadPoolExecutor(1, "confide-search")
            self.searcher = connect(self.path, is_unsafe=self.is_unsafe)
            for connection in (self._reader, self.searcher):
                connection.execute("PRAGMA query_only = ON")
        except (apsw.Error, OSError, DatabaseUnavailable) as error:
            raise _build_open_error(self.path, error) from error
        self._writer = Writer(
            writer,
            self.path.with_name("confide.lock"),
            stamps=self._stamps,
            loop=asyncio.get_running_loop(),
            storage=self.storage,
            io=self.io,
        )

    async def close(self) -> None:
        # The writer is last: closing the last connection checkpoints the write-ahead log.
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        searcher, self.searcher = self.searcher, None  # a running search checks this and stops
        if searcher is not None and self._search_executor is not None:
            await asyncio.to_thread(self._search_executor.shutdown, cancel_futures=True)
            searcher.close()
        if self._writer is not None:
            await self._writer.close()
            self._writer = None

    @property
    def reader(self) -> apsw.Connection:
        if self._reader is None:
            raise DatabaseUnavailable
        return self._reader

    async def query(self, sql: str, *args: Any) -> Rows:
        return self._fetch(sql, args)

    async def search(self, sql: str, *args: Any) -> Rows:
        # Most searches are short and faster here: on a thread, each row would release and reacquire the GIL.
        reader = self.reader
        reader.set_progress_handler(lambda: True, MAX_LOOP_STEPS)
        try:
            return self._fetch(sql, args)
        except apsw.InterruptError:
            pass
        finally:
            reader.set_progress_handler(None)
        return await self._search_on_thread(sql, args)

    def _fetch(self, sql: str, args: Sequence[Any]) -> Rows:
        began = monotonic_ns()
        try:
            rows = self.reader.execute(sql, bind_arguments(args)).fetchall()
        except (apsw.SQLError, apsw.BindingsError, apsw.InterruptError):
            raise
        except apsw.Error as error:
            record_failure(self.io, find_operation(sql), began, error)
            raise translate_failure(error, self.reader.system_errno) from error
        self.io.record(find_operation(sql), began, amount=len(rows))
        return rows

    async def check_storage(self) -> None:
        """Raise `DatabaseFull` or `DatabaseReadOnly` if the file system of the database cannot store.

        Raises `DatabaseUnavailable` if the folder is gone.
        """
        folder = self.path.parent
        try:
            status = os.statvfs(folder)
        except OSError as error:
            raise translate_failure(error, error.errno or 0) from error
        if status.f_flag & os.ST_RDONLY:
            raise DatabaseReadOnly(f"The file system of {folder} is read-only.")
        free_blocks = status.f_bfree if os.geteuid() == 0 else status.f_bavail
        # A file system that does not count its blocks has none.
        if status.f_blocks and free_blocks * status.f_frsize < NEEDED_BYTES:
            raise DatabaseFull(f"The file system of {folder} is full.")
        await self.storage.check(self._probe_storage)

    async def _probe_storage(self) -> None:
        try:
            await asyncio.to_thread(_allocate_and_free, self.path.parent)
        except OSError as error:
            raise DatabaseFull(f"{self.path.parent}: {describe_error(error)}") from error

    async def _search_on_thread(self, sql: str, args: Sequence[Any]) -> Rows:
        if self._search_executor is None:
            raise DatabaseUnavailable
        began, left = monotonic_ns(), compute_remaining_seconds()
        search = _Search(self, sql, bind_arguments(args), until=time.monotonic() + left)
        try:
            async with asyncio.timeout(left):
                rows = await asyncio.get_running_loop().run_in_executor(self._search_executor, search)
        except (apsw.SQLError, apsw.BindingsError):
            raise
        except (TimeoutError, RuntimeError, apsw.Error) as error:
            record_failure(self.io, find_operation(sql), began, error)
            raise DatabaseUnavailable from error
        finally:
            search.is_abandoned = True
        self.io.record(find_operation(sql), began, amount=len(rows))
        return rows

    async def execute(self, sql: str, *args: Any, changes: Sequence[SlotChange] = ()) -> Rows:
        return await self.transact(run_one(sql, args, changes))

    async def transact(self, work: Transaction[T]) -> T:
        if self._writer is None:
            raise DatabaseUnavailable
        began = monotonic_ns()
        try:
            async with asyncio.timeout(compute_remaining_seconds()):
                result: T = await self._writer.submit(work)
        except (TimeoutError, asyncio.CancelledError) as error:
            # The operations of the single steps are still with the writer, so this records the whole wait.
            record_failure(self.io, WRITER, began, error)
            if isinstance(error, TimeoutError):
                raise DatabaseUnavailable from error
            raise
        return result

    async def confirm(self, slot: int) -> None:
        """Do nothing. A slot is marked before its commit, and stays marked until it is stamped."""

    async def transact_long(self, work: Transaction[T]) -> T:
        """Run a transaction without a time limit, for migrations and restores on the host."""
        if self._writer is None:
            raise DatabaseUnavailable
        result: T = await self._writer.submit(work)
        return result

    async def stream(self, statements: Sequence[str]) -> AsyncIterator[RowBatch]:
        connection = connect(self.path, is_unsafe=self.is_unsafe)
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            for number, sql in enumerate(statements):
                cursor = connection.execute(sql)
                while batch := await asyncio.to_thread(_fetch_batch, cursor):
                    yield RowBatch(number, batch)
        finally:
            connection.close()


class _Search:
    """A statement to run on the search thread. It stops when its caller has given up."""

    def __init__(self, engine: SqliteEngine, sql: str, args: Any, *, until: float) -> None:
        self.is_abandoned = False
        self._engine = engine
        self._sql = sql
        self._args = args
        self._until = until

    def __call__(self) -> Rows:
        searcher = self._engine.searcher
        if searcher is None or self._is_stopped():
            raise apsw.InterruptError
        searcher.set_progress_handler(self._is_stopped, CHECK_STEPS)
        return searcher.execute(self._sql, self._args).fetchall()

    def _is_stopped(self) -> bool:
        return self.is_abandoned or self._engine.searcher is None or time.monotonic() > self._until


def connect(path: Path, *, is_unsafe: bool) -> apsw.Connection:
    """Open a database file with WAL and durable commits. A new file is readable only by its owner."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5_000)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'OFF' if is_unsafe else 'FULL'}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
    except apsw.Error as error:
        failure = translate_failure(error, connection.system_errno)
        connection.close()
        raise failure from error
    return connection


def _build_open_error(path: Path, error: apsw.Error | OSError | DatabaseUnavailable) -> DatabaseUnavailable:
    system_error = error.errno or 0 if isinstance(error, OSError) else 0
    translated = error if isinstance(error, DatabaseUnavailable) else translate_failure(error, system_error)
    return type(translated)(f"The database file {path} cannot be opened: {translated}")


def _allocate_and_free(folder: Path) -> None:
    """Allocate the space of a save in a file without a name. A quota counts as well. Raises `OSError`."""
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, NEEDED_BYTES)


def _require_writable(path: Path) -> None:
    """Raise `DatabaseUnavailable` that names the first file of the database that this process cannot write.

    SQLite's own error does not say which one it is.
    """
    for file in (path.parent, path, *(path.with_name(f"{path.name}-{suffix}") for suffix in ("wal", "shm"))):
        if not os.access(file, os.R_OK | os.W_OK) and file.exists():
            raise DatabaseUnavailable(
                f"{file} must be readable and writable for user {os.geteuid()}, who runs Confide. Change its owner or"
                " mode, or use a file system that is not read-only."
            )


def _read_sqlite_version() -> int:
    major, minor, patch = (int(part) for part in apsw.sqlite_lib_version().split(".")[:3])
    return major * 1_000_000 + minor * 1_000 + patch


def _fetch_batch(cursor: apsw.Cursor) -> Rows:
    rows: list[Row] = []
    for row in cursor:
        rows.append(row)
        if len(rows) >= BATCH_SIZE:
            break
    return rows
