"""uvicorn's protocol class with the limits it lacks: how large a head may be and how long it may take."""

from __future__ import annotations

import asyncio
import secrets
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from confide.errors import ServiceError
from confide.telemetry.request_log import log_request
from confide.web.errors import HeadersTooLarge, MalformedRequest, RequestTimeout
from confide.web.problems import build_problem
from confide.web.request import MAX_HEADERS_BYTES, MAX_URI_BYTES
from confide.web.request_scope import OTHER

if TYPE_CHECKING:
    from confide.server.application import Application

HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = MAX_HEADERS_BYTES + MAX_URI_BYTES + 1024


class GuardedProtocol(HttpToolsProtocol):
    """Refuses an endless head, a slow one and broken framing, each with a problem document."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app: Any = self.app
        # Behind a proxy the server's own middleware stands before the door.
        self._application: Application = getattr(app, "app", app)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # An answer that goes on ends a caller who takes nothing: closing would wait for what was written.
        self.scope["confide.abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key]
        self._is_in_head = True
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._finish_head()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - our own sentence
        self._refuse(MalformedRequest())

    def _finish_head(self) -> None:
        self._stop_timer()
        self._is_in_head = False
        self._head_bytes = 0

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_took_too_long)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_took_too_long(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._refuse(RequestTimeout())
        else:
            self.transport.close()

    def _refuse(self, refusal: ServiceError) -> None:
        self._stop_timer()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            # Whoever works on it must neither answer nor take what it has of the body for whole.
            cycle.disconnected = True
            cycle.message_event.set()
        # While an answer is under way a second one would be taken for its end: only close.
        if cycle is None or cycle.response_complete or not cycle.response_started:
            request_id = secrets.token_hex(8)
            answer = build_problem(refusal).with_header(b"request-id", request_id.encode())
            self.transport.write(answer.as_bytes([(b"connection", b"close")]))
            # Nobody knows what it would have asked for.
            self._application.process.observation.traffic.count(OTHER, answer.status)
            log_request(
                "-", "-", answer.status, began_ns=monotonic_ns(), request_id=request_id, trace_id=None, principal=None
            )
        self.transport.close()
