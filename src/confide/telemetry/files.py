"""Reading what workers wrote into their SQLite files, while they may be writing on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

PORTION = 20_000
BUSY_MILLISECONDS = 5_000

COUNT = "SELECT coalesce(max(rowid) - min(rowid) + 1, 0) FROM noted"
EVENTS = """
    SELECT id, parent, operation, began_at, ended_ns - began_ns, outcome, amount, request_id FROM events
    WHERE ended_at >= ?
"""


class IoFileBroken(Exception):
    """A file is none of ours, or damaged."""


class Read(NamedTuple):
    """One event as the report reads it: it began so many microseconds after 1970 and took so many nanoseconds."""

    id: int
    parent: int | None
    operation: str
    began_at: int
    took: int
    outcome: str
    amount: int
    request_id: str | None


class IoFiles:
    """The files of all workers of a data folder, read together."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.db"))

    def count(self) -> int:
        """About how many events there are."""
        total = 0
        for path in self.paths:
            with _opened(path) as connection:
                if connection is not None:
                    ((rows,),) = connection.execute(COUNT)
                    total += rows
        return total

    def events(self, *, since: int, tell: Callable[[int], None]) -> Iterator[tuple[object, ...]]:
        """Each event that ended since then, as the fields of `Read`; `tell` is told how many were read."""
        done = 0
        for path in self.paths:
            with _opened(path) as connection:
                for row in () if connection is None else connection.execute(EVENTS, (since,)):
                    yield row
                    done += 1
                    if not done % PORTION:
                        tell(done)
        tell(done)

    def of_requests(self, request_ids: Sequence[str]) -> dict[str, list[Read]]:
        """All events of some requests, each request's in the order in which they began."""
        found: dict[str, list[Read]] = {request_id: [] for request_id in request_ids}
        places = ", ".join("?" * len(request_ids))
        for path in self.paths:
            with _opened(path) as connection:
                if connection is None:
                    continue
                for row in connection.execute(f"{EVENTS} AND request_id IN ({places})", (0, *request_ids)):
                    event = Read(*row)
                    found[str(event.request_id)].append(event)
        for events in found.values():
            events.sort(key=lambda event: (event.began_at, -event.took))
        return found


@contextmanager
def _opened(path: Path) -> Iterator[apsw.Connection | None]:
    """The file, None if nothing was written into it yet; raises `IoFileBroken`."""
    connection = None
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.execute("PRAGMA query_only = ON")
        yield connection if connection.table_exists("main", "noted") else None
    except apsw.Error as error:
        raise IoFileBroken(f"{path} cannot be read: {error}.") from error
    finally:
        if connection is not None:
            connection.close()
