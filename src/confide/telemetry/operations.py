"""Operations that wait on something outside the process, and the log that they are noted in."""

from __future__ import annotations

from collections.abc import Awaitable
from time import monotonic_ns
from typing import Protocol, TypeVar

from confide.context import Trace

R = TypeVar("R")

OK = "ok"


class IoLog(Protocol):
    """Takes note of each operation that waited; it has no argument that could hold a body, a token or a parameter."""

    def begin(self, request_id: str | None, *, trace_id: str | None = None, parent_span: str | None = None) -> Trace:
        """Name a request that has just come; its event is noted when it ends."""

    def end(
        self, request: Trace, operation: str, began: int, *, outcome: str, amount: int, ended: int | None = None
    ) -> None:
        """Note a request that is answered, now or at `ended`, with the bytes of its answer.

        Times are `monotonic_ns`.
        """

    def note(self, operation: str, began: int, *, outcome: str = OK, amount: int = 0, ended: int | None = None) -> None:
        """Note what has ended, now or at `ended`, for the request under way: how it ended, and its rows.

        The name of an operation is a constant of ours; an outcome is `ok` or the name of an error's class.
        """


class NoIoLog:
    """For whom nothing is noted: commands on the host, and a service that was told so."""

    def begin(self, request_id: str | None, *, trace_id: str | None = None, parent_span: str | None = None) -> Trace:
        return Trace(0, request_id, trace_id=trace_id, parent_span=parent_span)

    def end(
        self, request: Trace, operation: str, began: int, *, outcome: str, amount: int, ended: int | None = None
    ) -> None: ...

    def note(
        self, operation: str, began: int, *, outcome: str = OK, amount: int = 0, ended: int | None = None
    ) -> None: ...


def note_failure(io: IoLog, operation: str, began: int, error: BaseException) -> None:
    """Note an operation that ended with an error: its class only, for its text may quote anything."""
    io.note(operation, began, outcome=type(error).__name__)


async def measure(io: IoLog, operation: str, doing: Awaitable[R]) -> R:
    """Do it, and note how long that took and how it ended."""
    began = monotonic_ns()
    try:
        result = await doing
    except BaseException as error:
        note_failure(io, operation, began, error)
        raise
    io.note(operation, began)
    return result


SILENT: IoLog = NoIoLog()
