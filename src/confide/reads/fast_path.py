"""The fast path of cached reads: answer plain reads where their bytes arrive, without a task."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from time import CLOCK_BOOTTIME, clock_gettime
from typing import Any

from confide.clock import boottime
from confide.reads.reader import CachedRead
from confide.reads.request import ReadRequest
from confide.reads.response import COMMON_LINES, DESCRIBED_LINES, FOUND, NOT_MODIFIED
from confide.web.http_protocol import GuardedProtocol
from confide.web.problems import bug
from confide.web.response import format_headers

MAX_PLAIN_HEAD_BYTES = 2_048
CACHED_ROUTE = "GET /config"
_BEGIN = b"GET /config?"
# Parsed only for reads from the database.
_TRACEPARENT = re.compile(rb"\r\ntraceparent:[ \t]*([0-9a-f-]{55,100})[ \t]*\r\n", re.IGNORECASE)


class ReadingProtocol(GuardedProtocol):
    """Answers plain reads itself, and passes other data to the server's own protocol class.

    It accepts only a complete, single request head on an idle keep-alive connection with an empty pipeline and a
    writable transport. So responses keep the order of their requests.
    """

    _is_between = True
    _is_last = False
    _reading: asyncio.Task[None] | None = None
    _came_early = b""
    _used_at = 0.0
    _headers_of_now: object = None
    _found = _not_modified = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app: Any = self.app
        self._is_behind_proxy = app is not self._application
        self._heads, self._reader = self._application.process.caching.heads, self._application.process.reads.reader

    def data_received(self, data: bytes) -> None:
        if self._reading is not None:
            self._came_early += data
        elif not (
            self._is_between
            and data.startswith(_BEGIN)
            and len(data) <= MAX_PLAIN_HEAD_BYTES
            and ((cycle := self.cycle) is None or cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
            and self._is_taken(data)
        ):
            super().data_received(data)
            self._must_have_timer()

    def shutdown(self) -> None:
        """End the connection; an answer that is under way goes out first."""
        if self._reading is None:
            super().shutdown()
        else:
            self._is_last = True

    def on_message_begin(self) -> None:
        self._is_between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._is_between = True
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one that was used since waits for the rest of its time."""
        left = self._used_at + self.timeout_keep_alive - boottime()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _is_taken(self, head: bytes) -> bool:
        """Whether it is a plain read: then it is answered, from memory at once or from the store in a task."""
        try:
            read = self._heads.find(head)
            if read is None or self.transport.is_closing():
                return False
            now = clock_gettime(CLOCK_BOOTTIME)  # as `boottime` does, without one more call
            self._used_at = now
            if self.timeout_keep_alive_task is None:
                self._begin_keeping_alive()
            response = self._reader.answer_at_once(read, now=now)
            if response is None:
                if self._is_behind_proxy:
                    return False  # the address of the caller is in a header, which the application reads
                self._read(read, head)
                return True
            server = self.server_state
            if self._headers_of_now is not server.default_headers:
                self._write_date(server.default_headers)
            first_lines = self._not_modified if response.is_not_modified else self._found
            self.transport.write(first_lines + response.raw)
            server.total_requests += 1
        except Exception as error:  # noqa: BLE001 - a bug, of which the caller is told that it is one
            self._application.process.observation.traffic.note(CACHED_ROUTE, HTTPStatus.INTERNAL_SERVER_ERROR)
            self.transport.write(bug(error).as_bytes([(b"connection", b"close")]))
            self.transport.close()
            return True
        if self._reader.has_sample and (sample := self._reader.take_sample()) is not None:
            self._application.record_sample(sample, began=now)
        return True

    def _read(self, read: CachedRead, head: bytes) -> None:
        self.flow.pause_reading()  # nothing else is answered before this is
        self._reading = self.loop.create_task(self._read_and_answer(read.request, head))
        self.tasks.add(self._reading)
        self._reading.add_done_callback(self.tasks.discard)

    async def _read_and_answer(self, request: ReadRequest, head: bytes) -> None:
        trace = _TRACEPARENT.search(head)
        answer = await self._application.read(
            request, address=self.client[0] if self.client else None, traceparent=trace and trace[1].decode()
        )
        self._reading = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        ending = [(b"connection", b"close")] if self._is_last else []
        self.transport.write(answer.as_bytes([*self.server_state.default_headers, *ending]))
        if self._is_last:
            self.transport.close()
            return
        self._used_at = clock_gettime(CLOCK_BOOTTIME)
        self.flow.resume_reading()
        if self._came_early:
            early, self._came_early = self._came_early, b""
            self.data_received(early)

    def _must_have_timer(self) -> None:
        """Line ends between two requests end the server's timer and begin none."""
        if self._head_timer is not None or self.timeout_keep_alive_task is not None or not self._is_between:
            return
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self._begin_keeping_alive()

    def _begin_keeping_alive(self) -> None:
        # This timer costs more than an answer: it is not set again for each, but asks when it ends.
        self._head_is_complete()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _write_date(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Write the first lines of answers anew: the server makes its headers of each second once."""
        self._headers_of_now = headers
        dated = format_headers(headers)
        self._found = FOUND + dated + DESCRIBED_LINES
        self._not_modified = NOT_MODIFIED + dated + COMMON_LINES
