"""The line that a request leaves in the log: one for each, so it is written by the shortest way."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from confide.identity.model import Principal

_requests = logging.getLogger("confide.requests")


class RequestLogLine(dict[str, Any]):
    """The fields of a line, which is JSON where it is text; never a query, a header or a body."""

    def __str__(self) -> str:
        return json.dumps(self)


def note(
    method: str,
    path: str,
    status: int,
    *,
    began: int,
    request_id: str,
    trace_id: str | None,
    who: Principal | None,
) -> None:
    """Log a request that is answered; `began` is `monotonic_ns`."""
    if not _requests.isEnabledFor(logging.INFO):
        return
    line = RequestLogLine(
        method=method,
        path=path,
        status=status,
        milliseconds=round((time.monotonic_ns() - began) / 1e6, 2),
        request_id=request_id,
        user_id=who.user_id if who else None,
        event="request",
        level="info",
        **({} if trace_id is None else {"trace_id": trace_id}),
        timestamp=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    )
    # Not by `info`: it would look for the place in the code that called it.
    _requests.handle(logging.LogRecord(_requests.name, logging.INFO, "", 0, line, (), None))
