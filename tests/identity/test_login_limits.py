"""Failed logins are limited for each client and for each login."""

from __future__ import annotations

from confide.identity.login_limits import (
    MAX_FROM_ANYWHERE,
    MAX_FROM_ONE_ADDRESS,
    WINDOW_MICROSECONDS,
    FailedAttempt,
    compute_wait_seconds,
)

SECOND = 1_000_000
NOW = 2 * WINDOW_MICROSECONDS


def build_attempts(count: int, *, address: str | None = None) -> list[FailedAttempt]:
    """Build failed attempts, the newest first: the latest one now, each other one a second earlier."""
    return [FailedAttempt(address or f"192.0.2.{number}", NOW - number * SECOND) for number in range(count)]


def test_the_limit_of_one_address_ends_when_its_oldest_counted_attempt_leaves_the_window() -> None:
    attempts = build_attempts(MAX_FROM_ONE_ADDRESS, address="a")
    assert compute_wait_seconds(attempts[1:], "a", now=NOW) is None
    assert compute_wait_seconds(attempts, "b", now=NOW) is None
    wait_seconds = compute_wait_seconds(attempts, "a", now=NOW)
    assert wait_seconds == WINDOW_MICROSECONDS // SECOND - MAX_FROM_ONE_ADDRESS + 2


def test_many_addresses_share_the_limit_of_a_login() -> None:
    attempts = build_attempts(MAX_FROM_ANYWHERE)
    assert compute_wait_seconds(attempts[1:], "new", now=NOW) is None
    assert compute_wait_seconds(attempts, "new", now=NOW) is not None
    latest = NOW - (MAX_FROM_ANYWHERE - 1) * SECOND + WINDOW_MICROSECONDS
    assert compute_wait_seconds(attempts, "new", now=latest) == 1
