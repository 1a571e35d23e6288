"""I/O events, one for each recorded operation, and the queue that holds them until the dispatcher takes them."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator
from itertools import count
from time import monotonic_ns
from typing import Any, Final, NamedTuple, TypeAlias

from confide.context import Trace, current_request
from confide.telemetry.io_log import OK

# The values of `FIELDS`. A plain tuple, because creating a named tuple takes longer than the rest of `record`.
# Times are `time.monotonic_ns`.
Event: TypeAlias = tuple[int, int | None, str, int, int, str, int, str | None, str | None, str | None, int | None]
ID: Final = 0
PARENT: Final = 1
OPERATION: Final = 2
BEGAN_NS: Final = 3
ENDED_NS: Final = 4
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
TABLE_COLUMNS = ("worker", *FIELDS, "began_at", "ended_at")


class Batch(NamedTuple):
    """Events of one worker. A monotonic time plus `clock_offset_ns` is the time since 1970 in nanoseconds."""

    worker: str
    clock_offset_ns: int
    events: list[Event]


class EventRecorder:
    """A bounded queue of events in memory. Recording never waits: a full queue drops and counts its oldest event."""

    def __init__(self, *, worker: str, max_events: int) -> None:
        self._worker = worker
        self._queue: deque[Event] = deque(maxlen=max_events)
        # IDs count up from a random number, so that two workers, or two runs of one worker, do not share an ID.
        self._next_id = count(secrets.randbits(62)).__next__
        self.dropped = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def begin_request(
        self, request_id: str | None, *, trace_id: str | None = None, parent_span: str | None = None
    ) -> Trace:
        return Trace(self._next_id(), request_id, trace_id=trace_id, parent_span=parent_span)

    def end_request(
        self, trace: Trace, operation: str, began_ns: int, *, outcome: str, amount: int, ended_ns: int | None = None
    ) -> None:
        if ended_ns is None:
            ended_ns = monotonic_ns()
        self._append((
            trace.event_id, None, operation, began_ns, ended_ns, outcome, amount, trace.request_id,
            trace.trace_id, trace.parent_span, trace.user_id,
        ))  # fmt: skip

    def record(
        self, operation: str, began_ns: int, *, outcome: str = OK, amount: int = 0, ended_ns: int | None = None
    ) -> None:
        if ended_ns is None:
            ended_ns = monotonic_ns()
        trace = current_request.get().trace
        if trace is None:
            self._append(
                (self._next_id(), None, operation, began_ns, ended_ns, outcome, amount, None, None, None, None)
            )
        else:
            self._append((
                self._next_id(), trace.event_id, operation, began_ns, ended_ns, outcome, amount, trace.request_id,
                trace.trace_id, None, trace.user_id,
            ))  # fmt: skip

    def take(self) -> Batch:
        """Remove and return the queued events. Only one thread may call this; others may record meanwhile."""
        events = [self._queue.popleft() for _ in range(len(self._queue))]
        return Batch(self._worker, time.time_ns() - monotonic_ns(), events)

    def _append(self, event: Event) -> None:
        queue = self._queue
        if len(queue) == queue.maxlen:
            self.dropped += 1
        queue.append(event)


def build_documents(batch: Batch) -> Iterator[dict[str, Any]]:
    """Build a JSON object for each event. `began_at` and `ended_at` are microseconds since 1970."""
    for event in batch.events:
        document: dict[str, Any] = {"worker": batch.worker, **dict(zip(FIELDS, event, strict=True))}
        document["began_at"] = (event[BEGAN_NS] + batch.clock_offset_ns) // 1_000
        document["ended_at"] = (event[ENDED_NS] + batch.clock_offset_ns) // 1_000
        yield document


def build_rows(batch: Batch) -> list[tuple[Any, ...]]:
    """Build a row of `TABLE_COLUMNS` for each event, with the same times as a document."""
    worker, offset_ns = batch.worker, batch.clock_offset_ns
    return [
        (worker, *event, (event[BEGAN_NS] + offset_ns) // 1_000, (event[ENDED_NS] + offset_ns) // 1_000)
        for event in batch.events
    ]
