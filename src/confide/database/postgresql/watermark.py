"""How far what has one order lags behind: the oldest transaction under way holds back what was committed after it."""

from __future__ import annotations

from bisect import bisect_right
from math import inf

# Closer together they would tell little more; the longer it waits, the further apart they may be.
APART_SECONDS = 0.25
MAX_KEPT = 1_000


class Watermark:
    """Since when something waits for an older transaction, from the snapshots that a process reads anyway.

    A snapshot is written `xmin:xmax:those under way`. Below `xmin` all is over; `xmax` is above all that is over
    (PostgreSQL, "Transaction ID and Snapshot Information Functions"). So something waits from the first snapshot on
    whose `xmax` is above the `xmin` of now; when transactions began an ordinary role is not told.
    """

    def __init__(self) -> None:
        # (xmax, seconds), both ascending; the first is of the snapshot since which something waits.
        self._seen: list[tuple[int, float]] = []
        self._apart = APART_SECONDS
        self._heard_at = 0.0

    def hear(self, snapshot: str, *, at: float) -> None:
        """A snapshot was read at that moment, in seconds of any clock that nobody sets."""
        xmin, xmax = map(int, snapshot.split(":")[:2])
        self._heard_at = at
        del self._seen[: bisect_right(self._seen, (xmin, inf))]
        if not self._seen:
            self._apart = APART_SECONDS
        last_xmax, last_at = self._seen[-1] if self._seen else (xmin, -inf)
        if xmax > last_xmax and at >= last_at + self._apart:
            self._seen.append((xmax, at))
        if len(self._seen) > MAX_KEPT:
            del self._seen[1::2]
            self._apart *= 2

    def age(self) -> float:
        """Seconds for which something had been waiting, at least, when a snapshot was last read; 0 if nothing had."""
        return self._heard_at - self._seen[0][1] if self._seen else 0.0
