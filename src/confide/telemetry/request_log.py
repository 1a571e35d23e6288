"""The request log: one line per request, written on a shorter path than other log lines."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from confide.identity.model import Principal

_requests = logging.getLogger("confide.requests")


class RequestLogLine(dict[str, Any]):
    """The fields of a line. They never hold a query, a header or a body. As text, the line is JSON."""

    def __str__(self) -> str:
        return json.dumps(self)


def log_request(
    method: str,
    path: str,
    status: int,
    *,
    began_ns: int,
    request_id: str,
    trace_id: str | None,
    principal: Principal | None,
) -> None:
    """Log an answered request. `began_ns` is a `time.monotonic_ns` time."""
    if not _requests.isEnabledFor(logging.INFO):
        return
    line = RequestLogLine(
        method=method,
        path=path,
        status=status,
        milliseconds=round((time.monotonic_ns() - began_ns) / 1e6, 2),
        request_id=request_id,
        user_id=principal.user_id if principal else None,
        event="request",
        level="info",
        **({} if trace_id is None else {"trace_id": trace_id}),
        timestamp=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    )
    # Not `info`, which would search the stack for the caller.
    _requests.handle(logging.LogRecord(_requests.name, logging.INFO, "", 0, line, (), None))
