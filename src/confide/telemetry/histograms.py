"""How long operations took, as counts in steps of time: for the metrics page, whatever the sinks do."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable

from confide.telemetry.events import BEGAN, ENDED, OPERATION, OUTCOME, Event
from confide.telemetry.operations import OK

# The upper ends of the steps in seconds; what took longer is in one more.
STEPS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
WHOLE = ("request ", "stream ", "cached ")
_STEPS_NS = tuple(int(step * 1e9) for step in STEPS)


class Histogram:
    """What one operation came to."""

    __slots__ = ("counts", "errors", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(STEPS) + 1)
        self.seconds = 0.0
        self.errors = 0


class Histograms:
    """Adds up on one thread and is taken over on another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[str, Histogram] = {}

    def add(self, events: Iterable[Event]) -> None:
        with self._lock:
            tallies = self._tallies
            for event in events:
                tally = tallies.get(event[OPERATION])
                if tally is None:
                    tally = tallies[event[OPERATION]] = Histogram()
                took = event[ENDED] - event[BEGAN]
                tally.counts[bisect_left(_STEPS_NS, took)] += 1
                tally.seconds += took / 1e9
                if event[OUTCOME] != OK:
                    tally.errors += is_error(event[OUTCOME])

    def take(self) -> dict[str, Histogram]:
        """What was added since this was last called, by operation."""
        with self._lock:
            taken, self._tallies = self._tallies, {}
        return taken


def is_whole(operation: str) -> bool:
    """Whether it is a request, whose time is made of other operations and of what the process does itself."""
    return operation.startswith(WHOLE)


def is_error(outcome: str) -> bool:
    """Whether something went wrong here: an error, or an answer of 500 and above. A refusal is none."""
    return outcome != OK and not (outcome.isdigit() and outcome < "500")
