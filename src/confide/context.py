"""The context of the current request: its ID, deadline, caller and trace."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confide.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from confide.identity.model import Principal

# The time limit of a response, and of a database query outside a request.
RESPONSE_TIMEOUT_SECONDS = 2.0
# A page that must decrypt or verify its rows ends after this time. The next page continues.
PAGE_SECONDS = 1.0


class Trace:
    """Values that the I/O events of one request share. All contexts derived from a request share its trace."""

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
    """The current request. Do not change a context in place: derive another one and set it.

    `deadline` is a `time.monotonic` time. Without one, each database query has a time limit of its own.
    `trace` is None for work that several requests share.
    """

    id: str
    address: str | None
    deadline: float | None
    principal: Principal | None
    trace: Trace | None
    # Whether `address` is that of a proxy which is not trusted to say whose request it forwards.
    is_proxy_address: bool = False

    def compute_remaining_seconds(self) -> float:
        """Return the time limit of a database query in seconds. Raises `DatabaseUnavailable` after the deadline."""
        left = RESPONSE_TIMEOUT_SECONDS if self.deadline is None else self.deadline - time.monotonic()
        if left <= 0:
            raise DatabaseUnavailable
        return left

    # Not `dataclasses.replace`, which is several times slower. Every save derives a context.
    def with_deadline(self, deadline: float | None) -> RequestContext:
        return RequestContext(self.id, self.address, deadline, self.principal, self.trace, self.is_proxy_address)

    def with_principal(self, principal: Principal) -> RequestContext:
        return RequestContext(self.id, self.address, self.deadline, principal, self.trace, self.is_proxy_address)

    def without_trace(self) -> RequestContext:
        return RequestContext(self.id, self.address, self.deadline, self.principal, None, self.is_proxy_address)


NO_REQUEST = RequestContext(id="-", address=None, deadline=None, principal=None, trace=None)

current_request: ContextVar[RequestContext] = ContextVar("current_request", default=NO_REQUEST)


def set_deadline(deadline: float | None) -> None:
    """Set the deadline of the current task and of the tasks that it starts from now on."""
    current_request.set(current_request.get().with_deadline(deadline))


def has_time_left() -> bool:
    """Return whether the deadline of the current task is still ahead."""
    deadline = current_request.get().deadline
    return deadline is None or time.monotonic() < deadline


def extend_deadline(seconds: float) -> None:
    """Give the current task more time: it waited for something other than the database."""
    deadline = current_request.get().deadline
    if deadline is not None:
        set_deadline(deadline + seconds)


def set_principal(principal: Principal) -> None:
    """Set the authenticated caller of the current request and of its later I/O events."""
    context = current_request.get()
    if context.trace is not None:
        context.trace.user_id = principal.user_id
    current_request.set(context.with_principal(principal))


def compute_remaining_seconds() -> float:
    """Return the time limit of a database query in seconds. Raises `DatabaseUnavailable` after the deadline."""
    return current_request.get().compute_remaining_seconds()
