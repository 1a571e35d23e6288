"""The context of the current request: its ID, deadline, caller and trace."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confide.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from confide.identity.model import Principal

ANSWER_SECONDS = 2.0


class Trace:
    """What the I/O events of one request share. Contexts that derive from one request share one trace."""

    __slots__ = ("event_id", "parent_span", "request_id", "trace_id", "user_id")

    def __init__(
        self, event_id: int, request_id: str | None, *, trace_id: str | None = None, parent_span: str | None = None
    ) -> None:
        self.event_id = event_id
        # None for a sampled read, which has no request ID.
        self.request_id = request_id
        # From the client's `traceparent` header (W3C Trace Context), hexadecimal.
        self.trace_id = trace_id
        self.parent_span = parent_span
        # Set when the token has been looked up.
        self.user_id: int | None = None


@dataclass(slots=True)
class RequestContext:
    """One request as all layers see it. Never changed in place: derive another and set that.

    `deadline` is a `time.monotonic` time. Without one, each database query has a time limit of its own.
    `trace` is None for work that belongs to no single request.
    """

    id: str
    address: str | None
    deadline: float | None
    principal: Principal | None
    trace: Trace | None

    def remaining_seconds(self) -> float:
        """Return how long a database query may take now. Raises `DatabaseUnavailable` after the deadline."""
        left = ANSWER_SECONDS if self.deadline is None else self.deadline - time.monotonic()
        if left <= 0:
            raise DatabaseUnavailable
        return left

    # Not `dataclasses.replace`, which takes several times as long and would be part of every save.
    def with_deadline(self, deadline: float | None) -> RequestContext:
        return RequestContext(self.id, self.address, deadline, self.principal, self.trace)

    def with_principal(self, principal: Principal) -> RequestContext:
        return RequestContext(self.id, self.address, self.deadline, principal, self.trace)

    def without_trace(self) -> RequestContext:
        return RequestContext(self.id, self.address, self.deadline, self.principal, None)


NO_REQUEST = RequestContext(id="-", address=None, deadline=None, principal=None, trace=None)

current_request: ContextVar[RequestContext] = ContextVar("current_request", default=NO_REQUEST)


def set_deadline(deadline: float | None) -> None:
    """Give the current task, and tasks that it starts from now on, another deadline."""
    current_request.set(current_request.get().with_deadline(deadline))


def set_principal(principal: Principal) -> None:
    """Attribute the current request, and its I/O events from now on, to an authenticated caller."""
    context = current_request.get()
    if context.trace is not None:
        context.trace.user_id = principal.user_id
    current_request.set(context.with_principal(principal))


def remaining_seconds() -> float:
    """Return how long a database query may take now. Raises `DatabaseUnavailable` after the deadline."""
    return current_request.get().remaining_seconds()
