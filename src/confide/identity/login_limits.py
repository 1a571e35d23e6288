"""The limits of failed logins, and when the next attempt is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from confide.clock import MICROSECONDS_PER_SECOND

# Attempts within this time count.
WINDOW_MICROSECONDS = 15 * 60 * MICROSECONDS_PER_SECOND
MAX_FROM_ONE_ADDRESS = 5
MAX_FROM_ANYWHERE = 20


class FailedAttempt(NamedTuple):
    """One failed login attempt: the address of the client, and when (microseconds since 1970)."""

    address: str
    at: int


def compute_wait_seconds(failed: Sequence[FailedAttempt], address: str, *, now: int) -> int | None:
    """Return the seconds until the next attempt from an address is allowed. None if it is allowed now.

    `failed` holds the latest attempts of one login within the window, the newest first.
    """
    from_anywhere = [attempt.at for attempt in failed]
    from_address = [attempt.at for attempt in failed if attempt.address == address]
    # Each limit allows an attempt as soon as one of its latest attempts leaves the window.
    allowed_at = [
        times[limit - 1] + WINDOW_MICROSECONDS
        for times, limit in ((from_address, MAX_FROM_ONE_ADDRESS), (from_anywhere, MAX_FROM_ANYWHERE))
        if len(times) >= limit
    ]
    if not allowed_at:
        return None
    return max(1, (max(allowed_at) - now) // MICROSECONDS_PER_SECOND + 1)
