"""Measure how long the oldest running transaction has delayed later commits in the change log."""

from __future__ import annotations

from bisect import bisect_right
from math import inf

# The minimum distance of samples. It doubles when the list is full.
MIN_DISTANCE_SECONDS = 0.25
MAX_SAMPLES = 1_000


class Watermark:
    """Computes the age of the watermark from the snapshots that the change feed reads anyway.

    A snapshot is `xmin:xmax:running`. All transactions below `xmin` have ended, and `xmax` is above all that have
    ended (PostgreSQL, "Transaction ID and Snapshot Information Functions"). So commits have waited since the first
    snapshot whose `xmax` is above the current `xmin`. Ordinary roles cannot read when a transaction began.
    """

    def __init__(self) -> None:
        # (xmax, seconds), both ascending. The first is the snapshot since which commits have waited.
        self._samples: list[tuple[int, float]] = []
        self._min_distance = MIN_DISTANCE_SECONDS
        self._observed_at = 0.0

    def observe(self, snapshot: str, *, at: float) -> None:
        """Record a snapshot and when it was read, in seconds of a monotonic clock."""
        xmin, xmax = map(int, snapshot.split(":")[:2])
        self._observed_at = at
        del self._samples[: bisect_right(self._samples, (xmin, inf))]
        if not self._samples:
            self._min_distance = MIN_DISTANCE_SECONDS
        last_xmax, last_at = self._samples[-1] if self._samples else (xmin, -inf)
        if xmax > last_xmax and at >= last_at + self._min_distance:
            self._samples.append((xmax, at))
        if len(self._samples) > MAX_SAMPLES:
            del self._samples[1::2]
            self._min_distance *= 2

    def compute_age_seconds(self) -> float:
        """Return how long a commit had waited at the last snapshot, at least; 0 if none waited."""
        return self._observed_at - self._samples[0][1] if self._samples else 0.0
