"""The I/O report: how often each operation ran, how long it took, and why the slowest requests were slow."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil
from typing import Any

from confide.telemetry.event_files import EventFiles, StoredEvent
from confide.telemetry.histograms import is_error, is_request
from confide.telemetry.io_log import OK

PERCENTILES = (50.0, 90.0, 99.0)
MAX_SLOW_REQUESTS = 10
MAX_INTERVALS = 120
MIN_INTERVAL_US = 1_000_000
# Upper bounds of the bars of the chart.
BAR_BOUNDS_MS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)


@dataclass(frozen=True, slots=True)
class Intervals:
    """Intervals of equal length that cover all events of a report. `start_us` is microseconds since 1970."""

    start_us: int
    length_us: int
    count: int


class OperationTimes:
    """The times of all events of one operation."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        # Microseconds since 1970.
        self.began_us = array("q")
        self.took_ns = array("q")
        self.errors = 0

    @property
    def is_request(self) -> bool:
        return is_request(self.operation)

    def summarize(self, *, all_ns: int) -> dict[str, Any]:
        """Return one line of the report. `share` is the part of `all_ns` that this operation took."""
        took_ns = sorted(self.took_ns)
        line: dict[str, Any] = {"operation": self.operation, "count": len(took_ns), "errors": self.errors}
        for percent in PERCENTILES:
            line[f"p{percent:g}_ms"] = find_percentile(took_ns, percent) / 1e6
        total_ns = sum(took_ns)
        return {
            **line,
            "max_ms": took_ns[-1] / 1e6,
            "total_ms": total_ns / 1e6,
            "share": total_ns / all_ns if all_ns else 0.0,
        }

    def count_by_duration(self) -> list[int]:
        """Count the events up to each of `BAR_BOUNDS_MS`, and the longer ones."""
        counts = [0] * (len(BAR_BOUNDS_MS) + 1)
        for took_ns in self.took_ns:
            counts[bisect_left(BAR_BOUNDS_MS, took_ns / 1e6)] += 1
        return counts

    def compute_percentiles(self, intervals: Intervals) -> dict[str, list[float | None]]:
        """Compute the percentiles in milliseconds of the events that began in each interval."""
        parts: list[list[int]] = [[] for _ in range(intervals.count)]
        for began_us, took_ns in zip(self.began_us, self.took_ns, strict=True):
            number = (began_us - intervals.start_us) // intervals.length_us
            parts[min(max(number, 0), intervals.count - 1)].append(took_ns)
        for part in parts:
            part.sort()
        return {
            f"p{percent:g}": [find_percentile(part, percent) / 1e6 if part else None for part in parts]
            for percent in PERCENTILES
        }


@dataclass(frozen=True, slots=True)
class SlowRequest:
    """A request and its operations, in the order in which they began."""

    request: StoredEvent
    operations: list[StoredEvent]

    def compute_own_ms(self) -> float:
        """Compute the time in which the request waited for no operation. Overlapping operations count once."""
        request = self.request
        waited_us, covered_until_us = 0.0, 0.0
        for operation in sorted(self.operations, key=lambda operation: operation.began_us):
            start_us = operation.began_us - request.began_us
            end_us = start_us + operation.took_ns / 1e3
            waited_us += max(0.0, end_us - max(start_us, covered_until_us))
            covered_until_us = max(covered_until_us, end_us)
        return max(0.0, request.took_ns / 1e6 - waited_us / 1e3)


class Report:
    """The events of a data folder, by operation, and the slowest requests."""

    def __init__(self, times: dict[str, OperationTimes], slowest: list[SlowRequest]) -> None:
        self.times = times
        self.slowest = slowest

    def count_events(self) -> int:
        return sum(len(times.took_ns) for times in self.times.values())

    def summarize(self, *, has_requests: bool) -> list[dict[str, Any]]:
        """Return a line for each kind of request, or for each other operation. The largest total is first."""
        chosen = [times for times in self.times.values() if times.is_request == has_requests]
        all_ns = sum(sum(times.took_ns) for times in chosen)
        return sorted((times.summarize(all_ns=all_ns) for times in chosen), key=lambda line: -line["total_ms"])

    def choose_intervals(self) -> Intervals:
        """Divide the time of all events into at most `MAX_INTERVALS` intervals."""
        start_us = min(min(times.began_us) for times in self.times.values())
        end_us = max(max(times.began_us) for times in self.times.values())
        length_us = max(MIN_INTERVAL_US, ceil((end_us - start_us + 1) / MAX_INTERVALS))
        return Intervals(start_us, length_us, (end_us - start_us) // length_us + 1)

    def to_document(self) -> dict[str, Any]:
        return {
            "events": self.count_events(),
            "requests": self.summarize(has_requests=True),
            "operations": self.summarize(has_requests=False),
            "slowest": [
                {
                    **slow.request.to_document(),
                    "unexplained_ms": slow.compute_own_ms(),
                    "operations": [operation.to_document() for operation in slow.operations],
                }
                for slow in self.slowest
            ],
        }


def read_report(
    files: EventFiles,
    *,
    since_us: int = 0,
    patterns: Sequence[str] = (),
    on_progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Read the events that ended at or after `since_us`, a time in microseconds since 1970.

    With `patterns`, read only the operations that match one of them. A pattern is a name and may contain `*`.
    """
    times_by_operation: dict[str, OperationTimes] = {}
    excluded: set[str] = set()
    slow: list[tuple[int, tuple[Any, ...]]] = []
    fastest_slow_ns = 0
    row: Any
    for row in files.read_events(since_us=since_us, on_progress=on_progress):
        # A plain tuple: a named one for each of millions of events takes too long.
        _, parent, operation, began_us, took_ns, outcome, _, request_id = row
        times = times_by_operation.get(operation)
        if times is None:
            if operation in excluded or not _is_match(operation, patterns):
                excluded.add(operation)
                continue
            times = times_by_operation[operation] = OperationTimes(operation)
        times.began_us.append(began_us)
        times.took_ns.append(took_ns)
        if outcome != OK:
            times.errors += is_error(outcome)
        if parent is None and took_ns > fastest_slow_ns and request_id is not None and operation.startswith("request "):
            heapq.heappush(slow, (took_ns, row))
            if len(slow) > MAX_SLOW_REQUESTS:
                fastest_slow_ns = heapq.heappop(slow)[0]
    requests = [StoredEvent(*row) for _, row in sorted(slow, reverse=True)]
    events = files.read_requests([str(request.request_id) for request in requests]) if requests else {}
    return Report(
        times_by_operation,
        [
            SlowRequest(request, [event for event in events[str(request.request_id)] if event.parent == request.id])
            for request in requests
        ],
    )


def find_percentile(ordered: Sequence[int], percent: float) -> int:
    """Return the nearest-rank percentile of sorted values."""
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def _is_match(operation: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(operation, pattern) for pattern in patterns)
