"""How long requests took from the moment they should have begun, in HDR histograms, a second each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hdrh.histogram import HdrHistogram

# From a microsecond to two minutes, to three digits.
LEAST, MOST, DIGITS = 1, 120_000_000, 3
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def new_histogram() -> Any:
    return HdrHistogram(LEAST, MOST, DIGITS)


def together(encoded: Iterable[str]) -> Any:
    """One histogram of several, each in the base64 form of HdrHistogram V2."""
    found = new_histogram()
    for text in encoded:
        found.decode_and_add(text)
    return found


class Second:
    """The requests that should have begun within one second: an empty one costs nothing."""

    def __init__(self) -> None:
        self.intended = 0
        self.histograms: dict[str, Any] = {}
        self.errors: Counter[str] = Counter()

    def note(self, call: str, micros: float) -> None:
        histogram = self.histograms.get(call)
        if histogram is None:
            histogram = self.histograms[call] = new_histogram()
        histogram.record_value(min(max(int(micros), LEAST), MOST))

    def document(self) -> dict[str, Any]:
        """As it goes into a result: counts, and histograms encoded."""
        return {
            "intended": self.intended,
            "answered": {call: histogram.get_total_count() for call, histogram in self.histograms.items()},
            "histograms": {call: histogram.encode().decode() for call, histogram in self.histograms.items()},
            "errors": dict(self.errors),
        }


class Seconds:
    """All seconds of a run in one process; those in which nothing is under way any more are kept small."""

    def __init__(self) -> None:
        self._open: dict[int, Second] = {}
        self._closed: dict[int, dict[str, Any]] = {}

    def of(self, second: int) -> Second:
        found = self._open.get(second)
        if found is None:
            found = self._open[second] = Second()
        return found

    def close_before(self, second: int) -> None:
        for number in [number for number in self._open if number < second]:
            self._closed[number] = self._open.pop(number).document()

    def documents(self) -> dict[int, dict[str, Any]]:
        self.close_before(max(self._open, default=0) + 1)
        return self._closed
