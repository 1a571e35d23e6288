"""One event for each operation that waited: what it holds, and the queue in which it waits to be written."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator
from itertools import count as numbers
from time import monotonic_ns
from typing import Any, Final, NamedTuple, TypeAlias

from confide.context import Trace, current_request
from confide.telemetry.operations import OK

# (id, parent, operation, began, ended, outcome, amount, request_id, trace_id, parent_span, user_id): a plain tuple,
# for a named one takes longer to make than all else here. Times are `monotonic_ns`.
Event: TypeAlias = tuple[int, int | None, str, int, int, str, int, str | None, str | None, str | None, int | None]
ID: Final = 0
PARENT: Final = 1
OPERATION: Final = 2
BEGAN: Final = 3
ENDED: Final = 4
OUTCOME: Final = 5
AMOUNT: Final = 6
REQUEST_ID: Final = 7
TRACE_ID: Final = 8
PARENT_SPAN: Final = 9
USER_ID: Final = 10
FIELDS = (
    "id", "parent", "operation", "began_ns", "ended_ns", "outcome", "amount", "request_id", "trace_id", "parent_span",
    "user_id",
)  # fmt: skip
# Of a row in a table.
COLUMNS = ("worker", *FIELDS, "began_at", "ended_at")


class Batch(NamedTuple):
    """Events of one worker, with what its monotonic clock must be given to tell the time, in nanoseconds."""

    worker: str
    wall_ns: int
    events: list[Event]


class Recorder:
    """Notes events in memory, never waiting: when the queue is full the oldest goes, and is counted."""

    def __init__(self, *, worker: str, most_events: int) -> None:
        self._worker = worker
        self._queue: deque[Event] = deque(maxlen=most_events)
        # Ids are a run of numbers from a random one on: no two workers, today's or yesterday's, share one.
        self._next_id = numbers(secrets.randbits(62)).__next__
        self.dropped = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def begin(self, request_id: str | None, *, trace_id: str | None = None, parent_span: str | None = None) -> Trace:
        return Trace(self._next_id(), request_id, trace_id=trace_id, parent_span=parent_span)

    def end(
        self, request: Trace, operation: str, began: int, *, outcome: str, amount: int, ended: int | None = None
    ) -> None:
        if ended is None:
            ended = monotonic_ns()
        self._put((
            request.event_id, None, operation, began, ended, outcome, amount, request.request_id,
            request.trace_id, request.parent_span, request.user_id,
        ))  # fmt: skip

    def note(self, operation: str, began: int, *, outcome: str = OK, amount: int = 0, ended: int | None = None) -> None:
        if ended is None:
            ended = monotonic_ns()
        of = current_request.get().trace
        if of is None:
            self._put((self._next_id(), None, operation, began, ended, outcome, amount, None, None, None, None))
        else:
            self._put((
                self._next_id(), of.event_id, operation, began, ended, outcome, amount, of.request_id, of.trace_id,
                None, of.user_id,
            ))  # fmt: skip

    def take(self) -> Batch:
        """Take out what waits; called by one thread only, while others may note."""
        taken = [self._queue.popleft() for _ in range(len(self._queue))]
        return Batch(self._worker, time.time_ns() - monotonic_ns(), taken)

    def _put(self, event: Event) -> None:
        queue = self._queue
        if len(queue) == queue.maxlen:
            self.dropped += 1
        queue.append(event)


def documents(batch: Batch) -> Iterator[dict[str, Any]]:
    """Each event as a document: its fields, with start and end on the wall clock in microseconds since 1970."""
    for event in batch.events:
        document: dict[str, Any] = {"worker": batch.worker, **dict(zip(FIELDS, event, strict=True))}
        document["began_at"] = (event[BEGAN] + batch.wall_ns) // 1_000
        document["ended_at"] = (event[ENDED] + batch.wall_ns) // 1_000
        yield document


def rows(batch: Batch) -> list[tuple[Any, ...]]:
    """Each event as a row of a table: the worker, its fields, and both times as in a document."""
    worker, wall_ns = batch.worker, batch.wall_ns
    return [
        (worker, *event, (event[BEGAN] + wall_ns) // 1_000, (event[ENDED] + wall_ns) // 1_000) for event in batch.events
    ]
