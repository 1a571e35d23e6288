"""The outage of one part of a process, logged once instead of at each failure."""

from __future__ import annotations

import time

from confide.errors import describe_error

# A reason can contain a number that changes at each failure.
MAX_REASONS = 5


class Outage:
    """Selects what the log gets: the first failure for each reason, and the first success after it."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()
        self._began = 0.0

    def find_new_reason(self, error: BaseException) -> str | None:
        """Record a failure. Return its reason if it must be logged, or None if this outage has logged it already."""
        reason = describe_error(error)
        if not self._reasons:
            self._began = time.monotonic()
        if reason in self._reasons or len(self._reasons) >= MAX_REASONS:
            return None
        self._reasons.add(reason)
        return reason

    def end(self) -> float | None:
        """Record a success. Return the seconds since the first failure, or None if there was none."""
        if not self._reasons:
            return None
        self._reasons.clear()
        return time.monotonic() - self._began
