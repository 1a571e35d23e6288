"""The clock on the wall."""

from __future__ import annotations

import time
from collections.abc import Callable


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


# Microseconds since 1970.
Clock = Callable[[], int]


MICROSECONDS_PER_SECOND = 1_000_000


def boottime() -> float:
    """Return seconds of the boot-time clock: never set, and running while the machine or the process sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
