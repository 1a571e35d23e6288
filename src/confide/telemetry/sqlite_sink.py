"""Events in SQLite files of their own, one a worker, bounded in size and age."""

from __future__ import annotations

import fcntl
import os
import time
from functools import cache
from itertools import chain
from pathlib import Path

import apsw

from confide.telemetry.events import FIELDS, Batch

# A worker takes the first name that no other one holds; more workers than that do not share a data folder.
MAX_WORKERS = 1_000
# Erased in one go, so that no write waits long for it; more than a write brings.
LEAST_ERASED = 1_000
BUSY_MILLISECONDS = 5_000

# A clock says what its worker's monotonic times are on the wall; another begins where that has moved by a millisecond.
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
CLOCK_NS = 1_000_000
NEW_CLOCK = "INSERT INTO clocks (worker, wall_ns) VALUES (?, ?) RETURNING clock"
# So many rows in one statement: a thread that lets go of the interpreter for each row makes the loop wait each time.
AT_ONCE = (256, 16, 1)
_PLACES = f"({', '.join('?' * (len(FIELDS) + 1))})"
USED_BYTES = """
    SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()
"""
# Rows come nearly in the order of time: the oldest are those that were put in first.
OLDEST = "SELECT ended_ns + wall_ns FROM noted JOIN clocks USING (clock) ORDER BY noted.rowid LIMIT 1"
ERASE_OLDEST = "DELETE FROM noted WHERE rowid IN (SELECT rowid FROM noted ORDER BY rowid LIMIT ?)"
ERASE_OLD = """
    DELETE FROM noted WHERE rowid IN (
        SELECT place FROM (
            SELECT noted.rowid AS place, ended_ns + wall_ns AS ended FROM noted JOIN clocks USING (clock)
            ORDER BY noted.rowid LIMIT ?
        ) WHERE ended < ?
    )
"""


class SqliteSink:
    """One file of this worker; what a crash of the machine takes from it is not worth waiting for the disk."""

    name = "sqlite"

    def __init__(self, folder: Path, *, most_bytes: int, most_seconds: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._most_seconds = most_seconds
        self._path: Path | None = None
        self._lock: int | None = None
        self._connection: apsw.Connection | None = None
        # The number of the clock in use, its worker and its offset.
        self._clock: tuple[int, str, int] | None = None

    def write(self, batch: Batch) -> None:
        connection = self._opened()
        with connection:
            clock = self._clock_of(connection, batch)
            written = [(clock, *event) for event in batch.events]
            at = 0
            for size in AT_ONCE:
                while at + size <= len(written):
                    connection.execute(insert(size), tuple(chain.from_iterable(written[at : at + size])))
                    at += size
            self._erase(connection, max(LEAST_ERASED, 2 * len(written)))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._clock = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _clock_of(self, connection: apsw.Connection, batch: Batch) -> int:
        worker, wall_ns = batch.worker, batch.wall_ns
        if self._clock is None or self._clock[1] != worker or abs(self._clock[2] - wall_ns) > CLOCK_NS:
            ((number,),) = connection.execute(NEW_CLOCK, (worker, wall_ns))
            self._clock = (int(number), worker, wall_ns)
        return self._clock[0]

    def _erase(self, connection: apsw.Connection, count: int) -> None:
        ((used,),) = connection.execute(USED_BYTES)
        if used > self._most_bytes:
            connection.execute(ERASE_OLDEST, (count,))
        before = time.time_ns() - self._most_seconds * 10**9
        if any(ended < before for (ended,) in connection.execute(OLDEST)):
            connection.execute(ERASE_OLD, (count, before))

    def _opened(self) -> apsw.Connection:
        if self._connection is not None and self._path is not None and self._path.exists():
            return self._connection
        # Perhaps somebody removed the files while we run: begin new ones.
        self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_old(self._folder, before=time.time() - self._most_seconds)
        self._lock, self._path = _claimed(self._folder)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = apsw.Connection(str(self._path))
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(SCHEMA)
        self._connection = connection
        return connection


@cache
def insert(rows: int) -> str:
    """The statement that puts in so many rows, each a clock and the fields of an event."""
    return f"INSERT INTO noted VALUES {', '.join([_PLACES] * rows)}"


def _claimed(folder: Path) -> tuple[int, Path]:
    """Take a name that no other process holds: its lock, held until it is closed, and its file."""
    for number in range(MAX_WORKERS):
        lock = _locked(folder / f"{number}.lock")
        if lock is not None:
            return lock, folder / f"{number}.db"
    raise OSError(f"{MAX_WORKERS} processes write I/O events into one data folder")


def _remove_old(folder: Path, *, before: float) -> None:
    """Remove files that nobody writes any more and whose last event is too old: nobody else would."""
    for path in folder.glob("*.db"):
        if path.stat().st_mtime >= before:
            continue
        lock = _locked(path.with_suffix(".lock"))
        if lock is not None:
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                (folder / name).unlink(missing_ok=True)
            os.close(lock)


def _locked(path: Path) -> int | None:
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
