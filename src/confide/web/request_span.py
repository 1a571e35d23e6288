"""The span of a request: it sets the request context, and records metrics, an I/O event and a log line at the end."""

from __future__ import annotations

import re
import secrets
import time
from time import monotonic_ns
from types import TracebackType
from typing import Self

from confide.context import RESPONSE_TIMEOUT_SECONDS, RequestContext, current_request
from confide.telemetry.io_log import IoLog
from confide.telemetry.request_log import log_request

# W3C Trace Context, section 3.2: version, trace ID, parent span ID, flags. Later versions may append more.
_TRACEPARENT = re.compile(
    r"(?:00-(?!.{53})|(?!00|ff)[0-9a-f]{2}-)(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
OTHER = "other"


class RequestCounter:
    """Counts requests by route and status, in plain integers, which are faster than the metrics library."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str], int] = {}

    def count(self, route: str, status: int) -> None:
        counted = route, str(status)
        self.requests[counted] = self.requests.get(counted, 0) + 1


class RequestSpan:
    """A context manager around the handling of one request. Set the attributes before its end."""

    def __init__(
        self,
        method: str,
        path: str,
        *,
        io: IoLog,
        traffic: RequestCounter,
        address: str | None,
        traceparent: str | None,
        is_proxy_address: bool = False,
    ) -> None:
        self.request_id = secrets.token_hex(8)
        # The path template of the route, such as `/users/{login}`.
        self.route = OTHER
        self.status = 0
        self.sent_bytes = 0
        # When the last bytes of the response were sent, in `monotonic_ns`.
        self.ended_ns: int | None = None
        self.is_stream = False
        self.is_logged = True
        self._method = method
        self._path = path
        self._io = io
        self._traffic = traffic
        trace = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
        trace_id, parent_span = trace.groups() if trace else (None, None)
        self._address = address
        self._is_proxy_address = is_proxy_address
        self._trace = io.begin_request(self.request_id, trace_id=trace_id, parent_span=parent_span)

    def __enter__(self) -> Self:
        self._began_ns = monotonic_ns()
        self._token = current_request.set(
            RequestContext(
                self.request_id,
                self._address,
                time.monotonic() + RESPONSE_TIMEOUT_SECONDS,
                None,
                self._trace,
                self._is_proxy_address,
            )
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        principal = current_request.get().principal
        current_request.reset(self._token)
        method = self._method if self._method in _METHODS else OTHER
        route = f"{method} {self.route}"
        self._traffic.count(route, self.status)
        outcome = str(self.status) if self.status else "Disconnected"
        operation = f"stream {route}" if self.is_stream else f"request {route}"
        # A stream lasts until now, even if it has not sent anything for a while.
        ended_ns = None if self.is_stream else self.ended_ns
        self._io.end_request(
            self._trace, operation, self._began_ns, outcome=outcome, amount=self.sent_bytes, ended_ns=ended_ns
        )
        if self.is_logged:
            log_request(
                self._method,
                self._path,
                self.status,
                began_ns=self._began_ns,
                request_id=self.request_id,
                trace_id=self._trace.trace_id,
                principal=principal,
            )
