"""The fast path: answer a plain `GET /config` where its bytes arrive, without a task if the cache has the response."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from time import CLOCK_BOOTTIME, clock_gettime
from typing import Any, Protocol

from confide.clock import read_boot_clock
from confide.reads.head_cache import RequestHeadCache
from confide.reads.plain_read import ReadRequest
from confide.reads.reader import ConfigReader, SampledRead
from confide.reads.response import COMMON_LINES, CONTENT_LINES, STATUS_200, STATUS_304, ConfigResponse
from confide.web.http_protocol import CountingApplication, GuardedProtocol
from confide.web.problems import build_bug_response
from confide.web.response import Response, format_headers

MAX_PLAIN_HEAD_BYTES = 2_048
CACHED_ROUTE = "GET /config"
_PREFIX = b"GET /config?"
# Parsed only for reads from the database.
_TRACEPARENT = re.compile(rb"\r\ntraceparent:[ \t]*([0-9a-f-]{55,100})[ \t]*\r\n", re.IGNORECASE)


class ReadingApplication(CountingApplication, Protocol):
    """An application that answers plain reads."""

    @property
    def request_heads(self) -> RequestHeadCache: ...

    @property
    def reader(self) -> ConfigReader: ...

    async def read(
        self, request: ReadRequest, *, address: str | None, traceparent: str | None
    ) -> Response | ConfigResponse:
        """Answer a plain read from the database. Always returns a response, also for errors."""
        ...

    def record_sample(self, sample: SampledRead, *, began_seconds: float) -> None:
        """Record a sampled read as an I/O event. `began` is `read_boot_clock` seconds."""


class ReadingProtocol(GuardedProtocol):
    """Answers plain reads, and passes all other data to uvicorn's protocol class.

    It accepts only one complete request head, on an idle keep-alive connection with an empty pipeline and a writable
    transport. So responses keep the order of their requests.
    """

    _application: ReadingApplication
    # No request is being received.
    _is_between_requests = True
    _must_close_after_response = False
    # The read from the database that is in progress, and the data that arrived during it.
    _reading: asyncio.Task[None] | None = None
    _early_data = b""
    # The server's default headers that are part of the prepared lines. The server replaces them every second.
    _formatted_headers: object = None
    _lines_of_200 = _lines_of_304 = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app: Any = self.app
        self._is_behind_proxy = app is not self._application
        # The cached read path uses them without a further lookup.
        self._request_heads, self._reader = self._application.request_heads, self._application.reader
        if self.slot is not None and self.slot.is_reserved:
            # Only the parser below knows the paths that such a connection answers. It closes after one response.
            self._is_between_requests = False

    def data_received(self, data: bytes) -> None:
        if self._reading is not None:
            self._early_data += data
        elif not (
            self._is_between_requests
            and data.startswith(_PREFIX)
            and len(data) <= MAX_PLAIN_HEAD_BYTES
            and ((cycle := self.cycle) is None or cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
            and self._try_to_answer(data)
        ):
            super().data_received(data)
            self._ensure_timer()

    def is_idle(self, *, since: float) -> bool:
        return self._reading is None and super().is_idle(since=since)

    def shutdown(self) -> None:
        """Close the connection, after the response of a read in progress."""
        if self._reading is None:
            super().shutdown()
        else:
            self._must_close_after_response = True

    def on_message_begin(self) -> None:
        self._is_between_requests = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._is_between_requests = True
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection. If it was used since the timer started, wait for the rest of the time."""
        left = self._last_used_at + self.timeout_keep_alive - read_boot_clock()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _try_to_answer(self, head: bytes) -> bool:
        """Answer a plain read: from the cache now, or from the database in a task. Return False for other requests."""
        try:
            cached = self._request_heads.find(head)
            if cached is None or self.transport.is_closing():
                return False
            now = clock_gettime(CLOCK_BOOTTIME)  # inlines `read_boot_clock`, which saves a call
            self._last_used_at = now
            if self.timeout_keep_alive_task is None:
                self._start_keep_alive_timer()
            response = self._reader.read_cached(cached, now=now)
            if response is None:
                if self._is_behind_proxy:
                    return False  # only the application reads the client's address from the proxy's header
                self._start_reading(cached.request, head)
                return True
            server = self.server_state
            if self._formatted_headers is not server.default_headers:
                self._format_lines(server.default_headers)
            first_lines = self._lines_of_304 if response.is_not_modified else self._lines_of_200
            self.transport.write(first_lines + response.raw)
            server.total_requests += 1
        except Exception as error:  # noqa: BLE001 - last resort: every error has a response
            self._application.traffic.count(CACHED_ROUTE, HTTPStatus.INTERNAL_SERVER_ERROR)
            self.transport.write(build_bug_response(error).as_bytes([(b"connection", b"close")]))
            self.transport.close()
            return True
        if self._reader.has_sample and (sample := self._reader.take_sample()) is not None:
            self._application.record_sample(sample, began_seconds=now)
        return True

    def _start_reading(self, request: ReadRequest, head: bytes) -> None:
        self.flow.pause_reading()  # keeps responses in the order of their requests
        self._reading = self.loop.create_task(self._read_from_database(request, head))
        self.tasks.add(self._reading)
        self._reading.add_done_callback(self.tasks.discard)

    async def _read_from_database(self, request: ReadRequest, head: bytes) -> None:
        trace = _TRACEPARENT.search(head)
        response = await self._application.read(
            request, address=self.client[0] if self.client else None, traceparent=trace and trace[1].decode()
        )
        self._reading = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        closing = [(b"connection", b"close")] if self._must_close_after_response else []
        self.transport.write(response.as_bytes([*self.server_state.default_headers, *closing]))
        if self._must_close_after_response:
            self.transport.close()
            return
        self._last_used_at = clock_gettime(CLOCK_BOOTTIME)
        self.flow.resume_reading()
        if self._early_data:
            data, self._early_data = self._early_data, b""
            self.data_received(data)

    def _ensure_timer(self) -> None:
        """Start a timer if none runs: empty lines between requests stop uvicorn's timer and start no other one."""
        if self._head_timer is not None or self.timeout_keep_alive_task is not None or not self._is_between_requests:
            return
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self._start_keep_alive_timer()

    def _start_keep_alive_timer(self) -> None:
        # A timer costs more than a response. So responses only record the time, and the timer checks it at its end.
        self._finish_head()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _format_lines(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Format the lines before `raw` of a response, with the server's current headers, such as `Date`."""
        self._formatted_headers = headers
        lines = format_headers(headers)
        self._lines_of_200 = STATUS_200 + lines + CONTENT_LINES
        self._lines_of_304 = STATUS_304 + lines + COMMON_LINES
