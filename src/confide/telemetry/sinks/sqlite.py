"""The sink `sqlite`: a file for each worker, limited in size and age."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import apsw

from confide.file_locks import try_lock
from confide.telemetry.events import FIELDS, Batch
from confide.telemetry.sinks.sink import SinkOptions

# A worker takes the first file name that no running worker holds.
MAX_WORKERS = 1_000
# A write deletes at least so many old events, and twice as many as it adds. A limit keeps each write short.
MIN_DELETED = 1_000
BUSY_MILLISECONDS = 5_000

# `clocks` maps the monotonic times of a worker to wall time. A drift of a millisecond adds a row.
SCHEMA = """
    CREATE TABLE IF NOT EXISTS clocks (
        clock INTEGER PRIMARY KEY, worker TEXT NOT NULL, wall_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS noted (
        clock INTEGER NOT NULL, id INTEGER NOT NULL, parent INTEGER, operation TEXT NOT NULL,
        began_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL, outcome TEXT NOT NULL, amount INTEGER NOT NULL,
        request_id TEXT, trace_id TEXT, parent_span TEXT, user_id INTEGER
    ) STRICT;
    CREATE VIEW IF NOT EXISTS events AS
        SELECT worker, id, parent, operation, began_ns, ended_ns, outcome, amount, request_id, trace_id, parent_span,
               user_id, (began_ns + wall_ns) / 1000 AS began_at, (ended_ns + wall_ns) / 1000 AS ended_at
        FROM noted JOIN clocks USING (clock)
"""
MAX_CLOCK_DRIFT_NS = 1_000_000
NEW_CLOCK = "INSERT INTO clocks (worker, wall_ns) VALUES (?, ?) RETURNING clock"
# Rows per INSERT. Each statement releases the interpreter lock, and a release per row would delay the event loop.
ROWS_PER_INSERT = (256, 16, 1)
_ROW = f"({', '.join('?' * (len(FIELDS) + 1))})"
USED_BYTES = """
    SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()
"""
# Rows are inserted nearly in the order of time, so the lowest row IDs are the oldest.
OLDEST = "SELECT ended_ns + wall_ns FROM noted JOIN clocks USING (clock) ORDER BY noted.rowid LIMIT 1"
DELETE_OLDEST = "DELETE FROM noted WHERE rowid IN (SELECT rowid FROM noted ORDER BY rowid LIMIT ?)"
DELETE_EXPIRED = """
    DELETE FROM noted WHERE rowid IN (
        SELECT row_id FROM (
            SELECT noted.rowid AS row_id, ended_ns + wall_ns AS ended FROM noted JOIN clocks USING (clock)
            ORDER BY noted.rowid LIMIT ?
        ) WHERE ended < ?
    )
"""


class _Clock(NamedTuple):
    number: int
    worker: str
    offset_ns: int


class _ClaimedFile(NamedTuple):
    # The descriptor of the lock file. Closing it releases the name.
    lock: int
    path: Path


class SqliteSink:
    """Rows in a file that only this worker writes. Writes are not synced: a crash of the machine may lose events."""

    name = "sqlite"

    def __init__(self, options: SinkOptions) -> None:
        self._folder = options.folder
        self._max_bytes = options.max_bytes
        self._max_age_seconds = options.max_age_seconds
        self._file: _ClaimedFile | None = None
        self._connection: apsw.Connection | None = None
        self._clock: _Clock | None = None

    def write(self, batch: Batch) -> None:
        connection = self._connect()
        with connection:
            clock = self._find_clock(connection, batch)
            rows = [(clock, *event) for event in batch.events]
            start = 0
            for count in ROWS_PER_INSERT:
                while start + count <= len(rows):
                    connection.execute(build_insert(count), tuple(chain.from_iterable(rows[start : start + count])))
                    start += count
            self._delete_old(connection, max(MIN_DELETED, 2 * len(rows)))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._clock = None
        if self._file is not None:
            os.close(self._file.lock)
            self._file = None

    def _find_clock(self, connection: apsw.Connection, batch: Batch) -> int:
        """Return the number of the clock of a batch. Adds a clock if the worker or the offset changed."""
        clock, worker, offset_ns = self._clock, batch.worker, batch.clock_offset_ns
        if clock is None or clock.worker != worker or abs(clock.offset_ns - offset_ns) > MAX_CLOCK_DRIFT_NS:
            ((number,),) = connection.execute(NEW_CLOCK, (worker, offset_ns))
            clock = self._clock = _Clock(int(number), worker, offset_ns)
        return clock.number

    def _delete_old(self, connection: apsw.Connection, max_rows: int) -> None:
        ((used_bytes,),) = connection.execute(USED_BYTES)
        if used_bytes > self._max_bytes:
            connection.execute(DELETE_OLDEST, (max_rows,))
        expired_ns = time.time_ns() - self._max_age_seconds * 10**9
        if any(ended_ns < expired_ns for (ended_ns,) in connection.execute(OLDEST)):
            connection.execute(DELETE_EXPIRED, (max_rows, expired_ns))

    def _connect(self) -> apsw.Connection:
        """Return the open connection, or open a file. A file that an operator deleted is replaced."""
        if self._connection is not None and self._file is not None and self._file.path.exists():
            return self._connection
        self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _delete_expired_files(self._folder, before=time.time() - self._max_age_seconds)
        self._file = _claim_file(self._folder)
        os.close(os.open(self._file.path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = apsw.Connection(str(self._file.path))
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(SCHEMA)
        self._connection = connection
        return connection


@cache
def build_insert(row_count: int) -> str:
    """Build the INSERT statement for rows of a clock number and the fields of an event."""
    return f"INSERT INTO noted VALUES {', '.join([_ROW] * row_count)}"


def _claim_file(folder: Path) -> _ClaimedFile:
    """Lock the first file name that no other process holds. Skip files of other users."""
    for number in range(MAX_WORKERS):
        try:
            lock = try_lock(folder / f"{number}.lock")
        except PermissionError:
            if not os.access(folder, os.W_OK | os.X_OK):
                raise
            continue
        if lock is not None:
            return _ClaimedFile(lock, folder / f"{number}.db")
    raise OSError(f"{MAX_WORKERS} processes already write I/O events to this data folder. Use another one.")


def _delete_expired_files(folder: Path, *, before: float) -> None:
    """Delete files whose worker has ended and whose last event is too old."""
    for path in folder.glob("*.db"):
        if path.stat().st_mtime >= before:
            continue
        with suppress(PermissionError):  # of another user
            lock = try_lock(path.with_suffix(".lock"))
            if lock is not None:
                for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                    (folder / name).unlink(missing_ok=True)
                os.close(lock)
