"""Failed logins are limited for each client and for each login."""

from __future__ import annotations

import pytest

from confide.identity.login_limits import (
    MAX_FROM_ANYWHERE,
    MAX_FROM_ONE_ADDRESS,
    MAX_OVER_ALL_LOGINS,
    WINDOW_MICROSECONDS,
    FailedAttempt,
    compute_wait_seconds,
)

SECOND = 1_000_000
NOW = 2 * WINDOW_MICROSECONDS


def build_attempts(count: int, *, address: str | None = None) -> list[FailedAttempt]:
    """Build failed attempts, the newest first: the latest one now, each other one a second earlier."""
    return [FailedAttempt(address or f"192.0.2.{number}", NOW - number * SECOND) for number in range(count)]


def wait(
    failed: list[FailedAttempt],
    over_all_logins: list[FailedAttempt] | None = None,
    *,
    address: str | None,
    is_proxy: bool = False,
    is_known: bool = False,
    now: int = NOW,
) -> int | None:
    return compute_wait_seconds(failed, over_all_logins or [], address, is_proxy=is_proxy, is_known=is_known, now=now)


def test_the_limit_of_one_address_ends_when_its_oldest_counted_attempt_leaves_the_window() -> None:
    attempts = build_attempts(MAX_FROM_ONE_ADDRESS, address="a")
    assert wait(attempts[1:], address="a") is None
    assert wait(attempts, address="b") is None
    wait_seconds = wait(attempts, address="a")
    assert wait_seconds == WINDOW_MICROSECONDS // SECOND - MAX_FROM_ONE_ADDRESS + 2


def test_many_addresses_share_the_limit_of_a_login() -> None:
    attempts = build_attempts(MAX_FROM_ANYWHERE)
    assert wait(attempts[1:], address="new") is None
    assert wait(attempts, address="new") is not None
    latest = NOW - (MAX_FROM_ANYWHERE - 1) * SECOND + WINDOW_MICROSECONDS
    assert wait(attempts, address="new", now=latest) == 1


def test_failures_from_other_addresses_do_not_lock_a_login_where_it_is_known() -> None:
    elsewhere = build_attempts(MAX_FROM_ANYWHERE)
    assert wait(elsewhere, address="home", is_known=True) is None
    here = build_attempts(MAX_FROM_ONE_ADDRESS, address="home")
    assert wait([*here, *elsewhere], address="home", is_known=True) is not None


def test_one_address_has_a_limit_over_all_logins() -> None:
    sprayed = build_attempts(MAX_OVER_ALL_LOGINS, address="a")
    assert wait([], sprayed[1:], address="a") is None
    assert wait([], sprayed, address="a") is not None
    assert wait([], sprayed, address="a", is_known=True) is None


@pytest.mark.parametrize("is_known", [False, True])
def test_only_the_limits_of_the_login_apply_at_the_address_of_a_proxy(*, is_known: bool) -> None:
    sprayed = build_attempts(MAX_OVER_ALL_LOGINS, address="proxy")
    assert wait([], sprayed, address="proxy", is_proxy=True, is_known=is_known) is None
    here, elsewhere = build_attempts(MAX_FROM_ONE_ADDRESS, address="proxy"), build_attempts(MAX_FROM_ANYWHERE)
    for failed in (here, elsewhere):
        assert wait(failed, address="proxy", is_proxy=True, is_known=is_known) is not None
    assert wait(elsewhere, address=None, is_known=is_known) is not None
