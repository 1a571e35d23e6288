"""Latency histograms of operations for the metrics page. They do not depend on the sinks."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable

from confide.telemetry.events import BEGAN_NS, ENDED_NS, OPERATION, OUTCOME, Event
from confide.telemetry.io_log import OK

# Upper bounds. One more bucket counts longer operations.
BUCKET_BOUNDS_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
REQUEST_PREFIXES = ("request ", "stream ", "cached ")
_BUCKET_BOUNDS_NS = tuple(int(bound * 1e9) for bound in BUCKET_BOUNDS_SECONDS)


class Histogram:
    """Durations and errors of one operation."""

    __slots__ = ("counts", "errors", "total_seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKET_BOUNDS_SECONDS) + 1)
        self.total_seconds = 0.0
        self.errors = 0


class Histograms:
    """Histograms by operation. One thread adds events, another takes the result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._histograms: dict[str, Histogram] = {}

    def add(self, events: Iterable[Event]) -> None:
        with self._lock:
            histograms = self._histograms
            for event in events:
                histogram = histograms.get(event[OPERATION])
                if histogram is None:
                    histogram = histograms[event[OPERATION]] = Histogram()
                took_ns = event[ENDED_NS] - event[BEGAN_NS]
                histogram.counts[bisect_left(_BUCKET_BOUNDS_NS, took_ns)] += 1
                histogram.total_seconds += took_ns / 1e9
                if event[OUTCOME] != OK:
                    histogram.errors += is_error(event[OUTCOME])

    def take(self) -> dict[str, Histogram]:
        """Remove and return what was added since the previous call."""
        with self._lock:
            histograms, self._histograms = self._histograms, {}
        return histograms


def is_request(operation: str) -> bool:
    """Return whether an event is of a whole request, not of an operation within one."""
    return operation.startswith(REQUEST_PREFIXES)


def is_error(outcome: str) -> bool:
    """Return whether an outcome is a failure of the server: an error class, or a status of 500 and above."""
    return outcome != OK and not (outcome.isdigit() and outcome < "500")
