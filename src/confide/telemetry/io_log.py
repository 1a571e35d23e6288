"""The I/O log: a record of each operation that waits for something outside the process."""

from __future__ import annotations

from collections.abc import Awaitable
from time import monotonic_ns
from typing import Protocol, TypeVar

from confide.context import Trace

R = TypeVar("R")

OK = "ok"


class IoLog(Protocol):
    """A log of requests and operations. No argument can hold a body, a token or a query parameter.

    Times are `time.monotonic_ns`. An event without `ended_ns` ends now.
    """

    def begin_request(
        self, request_id: str | None, *, trace_id: str | None = None, parent_span: str | None = None
    ) -> Trace:
        """Create the trace of a new request. Its event is recorded by `end_request`."""

    def end_request(
        self, trace: Trace, operation: str, began_ns: int, *, outcome: str, amount: int, ended_ns: int | None = None
    ) -> None:
        """Record an answered request. `amount` is the size of its response in bytes."""

    def record(
        self, operation: str, began_ns: int, *, outcome: str = OK, amount: int = 0, ended_ns: int | None = None
    ) -> None:
        """Record an operation for the current request, if there is one. `amount` is its number of rows.

        `operation` is a constant of the code. `outcome` is `ok` or the name of an error class.
        """


class NoIoLog:
    """An I/O log that records nothing: for commands on the host, and for a service whose I/O events are off."""

    def begin_request(
        self, request_id: str | None, *, trace_id: str | None = None, parent_span: str | None = None
    ) -> Trace:
        return Trace(0, request_id, trace_id=trace_id, parent_span=parent_span)

    def end_request(
        self, trace: Trace, operation: str, began_ns: int, *, outcome: str, amount: int, ended_ns: int | None = None
    ) -> None: ...

    def record(
        self, operation: str, began_ns: int, *, outcome: str = OK, amount: int = 0, ended_ns: int | None = None
    ) -> None: ...


def record_failure(io: IoLog, operation: str, began_ns: int, error: BaseException) -> None:
    """Record a failed operation with the class of its error only: the text can quote secrets."""
    io.record(operation, began_ns, outcome=type(error).__name__)


async def measure(io: IoLog, operation: str, awaitable: Awaitable[R]) -> R:
    """Await an operation and record its duration and outcome."""
    began_ns = monotonic_ns()
    try:
        result = await awaitable
    except BaseException as error:
        record_failure(io, operation, began_ns, error)
        raise
    io.record(operation, began_ns)
    return result


NO_IO_LOG: IoLog = NoIoLog()
