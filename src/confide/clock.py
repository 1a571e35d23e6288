"""The clocks. Each has one use.

- The wall clock: microseconds since 1970, for times that are stored or shown. An operator can set it.
- The boot clock: seconds, for how long caches trust their entries. It also runs while the machine sleeps.
- `time.monotonic` and `time.monotonic_ns`: deadlines, pauses and measured durations. It stops while the machine sleeps,
  so that a request does not time out during that time.

A parameter `now: int` is a wall-clock time in microseconds, and `now: float` is a boot-clock time in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MICROSECONDS_PER_SECOND = 1_000_000

# Returns microseconds since 1970, like `read_wall_clock`.
Clock = Callable[[], int]


def read_wall_clock() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1_000


def read_boot_clock() -> float:
    """Return seconds since the machine started. The boot clock cannot be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
