"""Latency recorder: one HDR histogram per operation and second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hdrh.histogram import HdrHistogram

# From a microsecond to two minutes, with three significant digits.
MIN_US, MAX_US, SIGNIFICANT_DIGITS = 1, 120_000_000, 3
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def create_histogram() -> Any:
    return HdrHistogram(MIN_US, MAX_US, SIGNIFICANT_DIGITS)


def merge_histograms(encoded: Iterable[str]) -> Any:
    """Merge histograms, each in the base64 form of HdrHistogram V2."""
    merged = create_histogram()
    for text in encoded:
        merged.decode_and_add(text)
    return merged


class SecondRecord:
    """Requests whose scheduled start lies in one second."""

    def __init__(self) -> None:
        self.intended = 0
        self.histograms: dict[str, Any] = {}
        self.errors: Counter[str] = Counter()

    def record(self, operation: str, latency_us: float) -> None:
        histogram = self.histograms.get(operation)
        if histogram is None:
            histogram = self.histograms[operation] = create_histogram()
        histogram.record_value(min(max(int(latency_us), MIN_US), MAX_US))

    def to_document(self) -> dict[str, Any]:
        return {
            "intended": self.intended,
            "answered": {name: histogram.get_total_count() for name, histogram in self.histograms.items()},
            "histograms": {name: histogram.encode().decode() for name, histogram in self.histograms.items()},
            "errors": dict(self.errors),
        }


class LatencyRecorder:
    """Seconds of one worker. Complete seconds are encoded early, which takes less memory."""

    def __init__(self) -> None:
        self._open: dict[int, SecondRecord] = {}
        self._encoded: dict[int, dict[str, Any]] = {}

    def open_second(self, second: int) -> SecondRecord:
        record = self._open.get(second)
        if record is None:
            record = self._open[second] = SecondRecord()
        return record

    def encode_before(self, second: int) -> None:
        """Encode all seconds before this one. None of their requests may still be in flight."""
        for number in [number for number in self._open if number < second]:
            self._encoded[number] = self._open.pop(number).to_document()

    def encode_all(self) -> dict[int, dict[str, Any]]:
        self.encode_before(max(self._open, default=0) + 1)
        return self._encoded
