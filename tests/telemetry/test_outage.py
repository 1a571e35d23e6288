"""An outage is logged once for each reason, and once at its end."""

from __future__ import annotations

import pytest

from confide.errors import Busy, DatabaseReadOnly, DatabaseUnavailable, describe_error
from confide.telemetry.outage import MAX_REASONS, Outage


def test_each_reason_is_logged_once_in_an_outage() -> None:
    outage = Outage()
    assert outage.end() is None
    assert outage.find_new_reason(OSError("refused")) == "refused"
    assert outage.find_new_reason(OSError("refused")) is None
    assert outage.find_new_reason(TimeoutError()) == "timeout"
    assert outage.find_new_reason(OSError("refused")) is None
    assert outage.end() is not None
    assert outage.end() is None
    assert outage.find_new_reason(OSError("refused")) == "refused"


def test_reasons_that_always_differ_are_logged_a_few_times() -> None:
    outage = Outage()
    reasons = [outage.find_new_reason(OSError(f"process {number} has ended")) for number in range(100)]
    assert len([reason for reason in reasons if reason is not None]) == MAX_REASONS


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "ConnectionResetError"),
        (DatabaseUnavailable(), "The database did not answer in time."),
        (DatabaseUnavailable(""), "The database did not answer in time."),
        (DatabaseReadOnly(), "The PostgreSQL server is read-only: it is a standby, or its operator made it so."),
        (Busy(), Busy.sentence),
        (OSError("two\nlines"), "two lines"),
    ],
)
def test_an_error_without_a_text_is_described(error: Exception, text: str) -> None:
    assert describe_error(error) == text
