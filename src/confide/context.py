"""The context of the current request."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass

from confide.errors import DatabaseUnavailable


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from, as far as the audit and the limit on logins must know."""

    address: str | None
    request_id: str


# Where the request under way comes from; set once, at the door.
caller: ContextVar[Caller] = ContextVar("caller", default=Caller(None, "-"))  # noqa: B039 - frozen


# When, on the monotonic clock, the request under way must have its answer; None where nobody waits.
deadline: ContextVar[float | None] = ContextVar("answer_by", default=None)


ANSWER_SECONDS = 2.0


def remaining_seconds() -> float:
    """How long the store may take now; raises `DatabaseUnavailable` if the request's time is over."""
    until = deadline.get()
    left = ANSWER_SECONDS if until is None else until - time.monotonic()
    if left <= 0:
        raise DatabaseUnavailable
    return left
