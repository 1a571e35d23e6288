"""The files of the `sqlite` sinks of all workers, which can be read while the workers write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw

PROGRESS_EVERY_EVENTS = 20_000
BUSY_MILLISECONDS = 5_000

COUNT = "SELECT coalesce(max(rowid) - min(rowid) + 1, 0) FROM noted"
# The columns are the fields of `StoredEvent`.
EVENTS = """
    SELECT id, parent, operation, began_at, ended_ns - began_ns, outcome, amount, request_id FROM events
    WHERE ended_at >= ?
"""


class EventFileUnreadable(Exception):
    """A file is damaged, or is not a database of I/O events."""


class StoredEvent(NamedTuple):
    """An event from a file. `began_us` is microseconds since 1970."""

    id: int
    parent: int | None
    operation: str
    began_us: int
    took_ns: int
    outcome: str
    amount: int
    request_id: str | None

    def to_document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "parent": self.parent,
            "operation": self.operation,
            "began_at": self.began_us,
            "took": self.took_ns,
            "outcome": self.outcome,
            "amount": self.amount,
            "request_id": self.request_id,
        }


class EventFiles:
    """The event files of all workers in one folder."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.db"))

    def estimate_count(self) -> int:
        """Estimate the number of events from the row IDs, without a scan."""
        total = 0
        for path in self.paths:
            with _open_file(path) as connection:
                if connection is not None:
                    ((rows,),) = connection.execute(COUNT)
                    total += rows
        return total

    def read_events(self, *, since_us: int, on_progress: Callable[[int], None]) -> Iterator[tuple[object, ...]]:
        """Yield the events that ended at or after `since_us`, as plain tuples of the fields of `StoredEvent`.

        `on_progress` gets the number of events read so far.
        """
        done = 0
        for path in self.paths:
            with _open_file(path) as connection:
                for row in () if connection is None else connection.execute(EVENTS, (since_us,)):
                    yield row
                    done += 1
                    if not done % PROGRESS_EVERY_EVENTS:
                        on_progress(done)
        on_progress(done)

    def read_requests(self, request_ids: Sequence[str]) -> dict[str, list[StoredEvent]]:
        """Read all events of the given requests, in the order in which they began."""
        found: dict[str, list[StoredEvent]] = {request_id: [] for request_id in request_ids}
        placeholders = ", ".join("?" * len(request_ids))
        for path in self.paths:
            with _open_file(path) as connection:
                if connection is None:
                    continue
                for row in connection.execute(f"{EVENTS} AND request_id IN ({placeholders})", (0, *request_ids)):
                    event = StoredEvent(*row)
                    found[str(event.request_id)].append(event)
        for events in found.values():
            events.sort(key=lambda event: (event.began_us, -event.took_ns))
        return found


@contextmanager
def _open_file(path: Path) -> Iterator[apsw.Connection | None]:
    """Open a file read-only. Yields None if its worker has not created the tables yet."""
    connection = None
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.execute("PRAGMA query_only = ON")
        yield connection if connection.table_exists("main", "noted") else None
    except apsw.Error as error:
        raise EventFileUnreadable(f"Cannot read {path}: {error}. If the file is damaged, move it away.") from error
    finally:
        if connection is not None:
            connection.close()
