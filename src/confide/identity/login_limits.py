"""The limits of failed logins, and when the next attempt is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from confide.clock import MICROSECONDS_PER_SECOND

# Attempts within this time count.
WINDOW_MICROSECONDS = 15 * 60 * MICROSECONDS_PER_SECOND
MAX_FROM_ONE_ADDRESS = 5
MAX_FROM_ANYWHERE = 20
# Failures of one address with any logins, against guessing one password for many logins.
MAX_OVER_ALL_LOGINS = 50
# For so long a login that succeeded from an address is known there.
KNOWN_MICROSECONDS = 30 * 24 * 60 * 60 * MICROSECONDS_PER_SECOND


class FailedAttempt(NamedTuple):
    """One failed login attempt: the address of the client, and when (microseconds since 1970)."""

    address: str
    at: int


class AttemptKeys(NamedTuple):
    """The keys under which a login attempt counts.

    They are MACs, because users sometimes type their password into the login field.
    """

    login: bytes
    # The key of a login that succeeded from an address.
    known: bytes
    # The key of all logins from the address.
    all_logins: bytes
    # The network of the caller, or of a proxy that does not say whose request it forwards. None if neither is known.
    address: str | None
    is_proxy: bool = False

    @property
    def stored_address(self) -> str:
        return self.address or "-"


def compute_wait_seconds(
    failed: Sequence[FailedAttempt],
    over_all_logins: Sequence[FailedAttempt],
    address: str | None,
    *,
    is_proxy: bool,
    is_known: bool,
    now: int,
) -> int | None:
    """Return the seconds until the next attempt from an address is allowed. None if it is allowed now.

    `failed` holds the latest attempts of one login within the window, the newest first, and `over_all_logins` those of
    the address. A login that is known at the address has only the limit of its own failures there, so that others
    cannot lock it out. At the address of a proxy, only the limits of the login apply, because the address is that of
    many callers.
    """
    from_anywhere = [attempt.at for attempt in failed]
    from_address = [attempt.at for attempt in failed if attempt.address == address]
    limits = [(from_address, MAX_FROM_ONE_ADDRESS)] if address is not None else []
    is_caller = address is not None and not is_proxy
    if not (is_caller and is_known):
        limits.append((from_anywhere, MAX_FROM_ANYWHERE))
    if is_caller and not is_known:
        limits.append(([attempt.at for attempt in over_all_logins], MAX_OVER_ALL_LOGINS))
    # Each limit allows an attempt as soon as one of its latest attempts leaves the window.
    allowed_at = [times[limit - 1] + WINDOW_MICROSECONDS for times, limit in limits if len(times) >= limit]
    if not allowed_at:
        return None
    return max(1, (max(allowed_at) - now) // MICROSECONDS_PER_SECOND + 1)
