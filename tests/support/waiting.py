"""Wait for a condition, never for a duration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# Generous, for a busy machine: only a failing test waits that long.
MAX_WAIT_SECONDS = 120.0
POLL_SECONDS = 0.05


def wait_until(condition: Callable[[], object], what: str, *, max_seconds: float = MAX_WAIT_SECONDS) -> None:
    """Poll until the condition is true. Raises AssertionError after `max_seconds`."""
    deadline = time.monotonic() + max_seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {max_seconds} s"
        time.sleep(POLL_SECONDS)


async def wait_until_async(
    condition: Callable[[], object],
    what: str,
    *,
    max_seconds: float = MAX_WAIT_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """As `wait_until`, without blocking the event loop between two polls."""
    deadline = time.monotonic() + max_seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {max_seconds} s"
        await asyncio.sleep(poll_seconds)


def build_stop_condition(*, min_seconds: float, has_enough: Callable[[], bool] = lambda: True) -> Callable[[], bool]:
    """Build a condition that is true after `min_seconds` and once there is enough, or after the maximum wait."""
    start = time.monotonic()

    def is_over() -> bool:
        elapsed = time.monotonic() - start
        return elapsed > min_seconds + MAX_WAIT_SECONDS or (elapsed > min_seconds and has_enough())

    return is_over
