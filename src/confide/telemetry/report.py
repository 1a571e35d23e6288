"""What the events say: how often each operation ran, how long it took, and why the slowest requests were slow."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil
from typing import Any

from confide.telemetry.files import IoFiles, Read
from confide.telemetry.histograms import is_error, is_whole

PERCENTILES = (50.0, 90.0, 99.0)
MAX_SLOW = 10
MAX_TIME_STEPS = 120
# Upper ends of the histogram's bars in milliseconds.
ENDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)


class Times:
    """When one operation began, in microseconds since 1970, and how long it took, in nanoseconds."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.began = array("q")
        self.took = array("q")
        self.errors = 0

    @property
    def is_whole(self) -> bool:
        return is_whole(self.operation)

    def line(self, *, of_all: int) -> dict[str, Any]:
        """Its line in the report; times in milliseconds, the share of all time that was waited or answered."""
        took = sorted(self.took)
        line: dict[str, Any] = {"operation": self.operation, "count": len(took), "errors": self.errors}
        for percent in PERCENTILES:
            line[f"p{percent:g}_ms"] = percentile(took, percent) / 1e6
        total = sum(took)
        return {**line, "max_ms": took[-1] / 1e6, "total_ms": total / 1e6, "share": total / of_all if of_all else 0.0}

    def histogram(self) -> list[int]:
        """How many took up to each of `ENDS`, and more than all of them."""
        counts = [0] * (len(ENDS) + 1)
        for took in self.took:
            counts[bisect_left(ENDS, took / 1e6)] += 1
        return counts

    def over_time(self, begin: int, step: int, steps: int) -> dict[str, list[float | None]]:
        """Percentiles of what began in each step of time, in milliseconds."""
        parts: list[list[int]] = [[] for _ in range(steps)]
        for began, took in zip(self.began, self.took, strict=True):
            parts[min(max((began - begin) // step, 0), steps - 1)].append(took)
        for part in parts:
            part.sort()
        return {
            f"p{percent:g}": [percentile(part, percent) / 1e6 if part else None for part in parts]
            for percent in PERCENTILES
        }


@dataclass(frozen=True, slots=True)
class SlowRequest:
    """A request with everything that was done for it, in the order in which it began."""

    request: Read
    operations: list[Read]

    def unexplained_ms(self) -> float:
        """The part of its time in which nothing of it was waited for."""
        request = self.request
        # In microseconds from its beginning.
        waited, until = 0.0, 0.0
        for one in sorted(self.operations, key=lambda one: one.began_at):
            begin = one.began_at - request.began_at
            end = begin + one.took / 1e3
            waited += max(0.0, end - max(begin, until))
            until = max(until, end)
        return max(0.0, request.took / 1e6 - waited / 1e3)


class Report:
    """What was read of the events of a data folder."""

    def __init__(self, times: dict[str, Times], slowest: list[SlowRequest]) -> None:
        self.times = times
        self.slowest = slowest

    @property
    def events(self) -> int:
        return sum(len(one.took) for one in self.times.values())

    def lines(self, *, whole: bool) -> list[dict[str, Any]]:
        """A line for each kind of request, or for each other operation; what took most of their time is first."""
        chosen = [one for one in self.times.values() if one.is_whole == whole]
        of_all = sum(sum(one.took) for one in chosen)
        return sorted((one.line(of_all=of_all) for one in chosen), key=lambda line: -line["total_ms"])

    def steps(self) -> tuple[int, int, int]:
        """Begin, length and number of the steps of time in which everything lies, in microseconds."""
        begin = min(min(one.began) for one in self.times.values())
        end = max(max(one.began) for one in self.times.values())
        step = max(1_000_000, ceil((end - begin + 1) / MAX_TIME_STEPS))
        return begin, step, (end - begin) // step + 1

    def document(self) -> dict[str, Any]:
        return {
            "events": self.events,
            "requests": self.lines(whole=True),
            "operations": self.lines(whole=False),
            "slowest": [
                {
                    **slow.request._asdict(),
                    "unexplained_ms": slow.unexplained_ms(),
                    "operations": [operation._asdict() for operation in slow.operations],
                }
                for slow in self.slowest
            ],
        }


def read_report(
    files: IoFiles, *, since: int = 0, wanted: Sequence[str] = (), tell: Callable[[int], None] = lambda _: None
) -> Report:
    """Read all events that ended since then, of operations that one of the patterns fits: a name, or with `*`."""
    times: dict[str, Times] = {}
    left_out: set[str] = set()
    slow: list[tuple[int, tuple[Any, ...]]] = []
    least = 0
    row: Any
    for row in files.events(since=since, tell=tell):
        _, parent, operation, began_at, took, outcome, _, request_id = row
        of = times.get(operation)
        if of is None:
            if operation in left_out or not _is_wanted(operation, wanted):
                left_out.add(operation)
                continue
            of = times[operation] = Times(operation)
        of.began.append(began_at)
        of.took.append(took)
        if outcome != "ok":
            of.errors += is_error(outcome)
        if parent is None and took > least and request_id is not None and operation.startswith("request "):
            heapq.heappush(slow, (took, row))
            if len(slow) > MAX_SLOW:
                least = heapq.heappop(slow)[0]
    requests = [Read(*row) for _, row in sorted(slow, reverse=True)]
    done_for = files.of_requests([str(request.request_id) for request in requests]) if requests else {}
    return Report(
        times,
        [
            SlowRequest(request, [one for one in done_for[str(request.request_id)] if one.parent == request.id])
            for request in requests
        ],
    )


def percentile(ordered: Sequence[int], percent: float) -> int:
    """The nearest rank: the least value that so many percent of all do not exceed."""
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def _is_wanted(operation: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(fnmatchcase(operation, pattern) for pattern in wanted)
