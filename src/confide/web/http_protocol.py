"""uvicorn's protocol class, with limits on the size and the time of a request head."""

from __future__ import annotations

import asyncio
import secrets
from time import monotonic_ns
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from confide.clock import read_boot_clock
from confide.errors import ServiceError
from confide.telemetry.request_log import log_request
from confide.web.callers import PEER
from confide.web.connections import Slot
from confide.web.errors import HeadersTooLarge, MalformedRequest, RequestTimeout, TooManyConnections
from confide.web.problems import build_problem
from confide.web.request import MAX_HEADERS_BYTES, MAX_URI_BYTES
from confide.web.request_span import OTHER, RequestCounter
from confide.web.response import format_headers

MAX_HEAD_SECONDS = 10.0
# On a connection above the limits, which has one of the reserved places.
MAX_RESERVED_HEAD_SECONDS = 2.0
RETRY_SECONDS = 5
_PROBES = (b"/health/", b"/metrics")
MAX_HEAD_BYTES = MAX_HEADERS_BYTES + MAX_URI_BYTES + 1024


class CountingApplication(Protocol):
    """An application that counts its requests."""

    @property
    def traffic(self) -> RequestCounter: ...


class GuardedProtocol(HttpToolsProtocol):
    """Rejects an oversized or slow request head and invalid framing, each with a problem document.

    An offered upgrade, such as to HTTP/2 by Java's client, is ignored (RFC 9110, section 7.8).
    """

    # None under a server that does not count connections.
    slot: Slot | None = None
    # When the last response was complete, in seconds of the boot-time clock.
    _last_used_at = 0.0
    # The error of the request whose head has arrived.
    _error: ServiceError | None = None
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.slot is not None:
            self.slot.connection = self
        app: Any = self.app
        # Behind a proxy, uvicorn's middleware wraps the application.
        self._application: CountingApplication = getattr(app, "app", app)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self.slot is not None:
            self.slot.release()
        super().connection_lost(exc)

    def is_idle(self, *, since: float) -> bool:
        """Return whether the connection has no request, and completed none since a time of the boot-time clock."""
        has_request = self.cycle is not None and not self.cycle.response_complete
        return not has_request and not self.pipeline and self._last_used_at < since

    def on_response_complete(self) -> None:
        self._last_used_at = read_boot_clock()
        super().on_response_complete()

    def end(self) -> None:
        # Closing would wait for a client that takes nothing.
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._is_in_head:
            self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserError:
            self._reject(self._error or MalformedRequest())
            return
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._reject(HeadersTooLarge())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # A stream aborts the connection of a client that does not read. Closing it would wait for the written data.
        self.scope["confide.abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key]
        self.scope[PEER] = self.client[0] if self.client else None  # type: ignore[literal-required]
        self._is_in_head = True
        if self._head_timer is None:
            self._start_head_timer()

    def on_headers_complete(self) -> None:
        if self._is_upgrade_offered():
            return
        self._finish_head()
        if self.slot is None or not self.slot.is_reserved:
            super().on_headers_complete()
            return
        if not self.url.startswith(_PROBES):
            self._error = TooManyConnections(retry_after_seconds=RETRY_SECONDS)
            raise self._error  # stops the parser
        super().on_headers_complete()
        self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        if not self._is_upgrade_offered():
            super().on_message_complete()

    def _parse(self, data: bytes) -> bytes:
        """Pass data to the parser. Return the data that it must get next.

        The parser ends a request that offers an upgrade after its head, and takes the body for another protocol. So a
        new parser gets the head without the offer, and the body.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            if self._is_upgrade_offered():
                head = self._build_head_without_upgrade()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
                return head + data[stop.args[0] :]
        return b""

    def _is_upgrade_offered(self) -> bool:
        # To the parser, CONNECT is an upgrade too. It stays a request for a path that does not exist.
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _build_head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        headers = [(name, value) for name, value in self.headers if name != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, format_headers(headers))

    def _finish_head(self) -> None:
        self._stop_timer()
        self._is_in_head = False
        self._head_bytes = 0

    def _start_head_timer(self) -> None:
        is_reserved = self.slot is not None and self.slot.is_reserved
        seconds = MAX_RESERVED_HEAD_SECONDS if is_reserved else MAX_HEAD_SECONDS
        self._head_timer = self.loop.call_later(seconds, self._reject_slow_head)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _reject_slow_head(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._reject(RequestTimeout())
        else:
            self.transport.close()

    def _reject(self, error: ServiceError) -> None:
        self._stop_timer()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            # Stop the request in progress: it must not respond, nor use its incomplete body.
            cycle.disconnected = True
            cycle.message_event.set()
        # If a response has started, the client would take a second one for a part of it. Then only close.
        if cycle is None or cycle.response_complete or not cycle.response_started:
            request_id = secrets.token_hex(8)
            response = build_problem(error).with_header(b"request-id", request_id.encode())
            self.transport.write(response.as_bytes([(b"connection", b"close")]))
            # The route of an incomplete head is unknown.
            self._application.traffic.count(OTHER, response.status)
            log_request(
                "-", "-", response.status, began_ns=monotonic_ns(), request_id=request_id, trace_id=None, principal=None
            )
        self.transport.close()
