"""Clocks: wall-clock time for stored times, boot time for durations."""

from __future__ import annotations

import time
from collections.abc import Callable

MICROSECONDS_PER_SECOND = 1_000_000

# Returns microseconds since 1970.
Clock = Callable[[], int]


def now() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1_000


def boottime() -> float:
    """Return seconds of the boot-time clock. It cannot be set, and it also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
