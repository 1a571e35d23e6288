"""The ASGI application: it answers plain reads from the cache, and passes all other requests to the router."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from time import monotonic_ns
from typing import TYPE_CHECKING

from confide.clock import read_boot_clock
from confide.context import current_request, set_principal
from confide.reads import plain_read
from confide.reads.fast_path import CACHED_ROUTE
from confide.reads.head_cache import RequestHeadCache
from confide.reads.plain_read import ReadRequest
from confide.reads.reader import CachedRequest, ConfigReader, SampledRead
from confide.reads.response import ConfigResponse, build_response
from confide.server import api, old_contract
from confide.strict_json import Json
from confide.web.asgi import AsgiScope, Message, Receive, Send
from confide.web.connections import Connections
from confide.web.problems import build_bug_response, build_error_response
from confide.web.request import Disconnected, Request
from confide.web.request_span import OTHER, RequestCounter, RequestSpan
from confide.web.response import Response
from confide.web.router import Router

if TYPE_CHECKING:
    from confide.server.process import Process

CACHED = f"cached {CACHED_ROUTE}"

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def _no_lifespan() -> AsyncIterator[None]:
    yield


class Application:
    """The ASGI application of one worker.

    Each request calls `process`, because the parts of a process exist only within its lifespan.
    """

    def __init__(
        self,
        process: Callable[[], Process],
        *,
        lifespan: Lifespan = _no_lifespan,
        connections: Connections | None = None,
    ) -> None:
        self._process = process
        self._lifespan = lifespan
        # None under a server that does not count connections.
        self.connections = connections
        self._routed: tuple[Process, Router] | None = None
        # The last status of each probed path.
        self._probed: dict[str, int] = {}

    def build_document(self) -> Json:
        """Build the OpenAPI document."""
        return api.build_document()

    @property
    def traffic(self) -> RequestCounter:
        return self._process().observation.traffic

    @property
    def request_heads(self) -> RequestHeadCache:
        return self._process().caching.request_heads

    @property
    def reader(self) -> ConfigReader:
        return self._process().reads.reader

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
            return
        if scope["method"] == "GET" and scope["raw_path"] == plain_read.PATH:
            cached = self._process().caching.request_heads.find_parsed(scope["query_string"], scope["headers"])
            if cached is not None:
                await self._answer_plain_read(cached, scope, send)
                return
        await self._handle(scope, receive, send)

    async def read(
        self, request: ReadRequest, *, address: str | None, traceparent: str | None
    ) -> Response | ConfigResponse:
        """Answer a plain read from the database. Always returns a response, also for errors.

        The log gets only errors, because there are thousands of reads a second.
        """
        reader = self._process().reads.reader
        response: Response | ConfigResponse
        with self._open_span("GET", "/config", address=address, traceparent=traceparent) as span:
            span.route, span.is_logged = "/config", False
            try:
                principal, is_database_unavailable = await reader.authenticate(request.credential)
                set_principal(principal)
                result = await reader.read(
                    request.key,
                    principal=principal,
                    min_version=request.min_version,
                    is_database_unavailable=is_database_unavailable,
                )
                response = build_response(result, request.known_tags)
            except Exception as error:  # noqa: BLE001 - last resort: every error has a response
                response = build_error_response(error, request_id=span.request_id)
            span.status, span.sent_bytes = response.status, len(response.body)
            span.is_logged = response.status >= HTTPStatus.BAD_REQUEST
        return response.with_header(b"request-id", span.request_id.encode())

    def record_sample(self, sample: SampledRead, *, began_seconds: float) -> None:
        """Record a sampled read as an I/O event. `began_seconds` is a time of `read_boot_clock`."""
        io = self._process().observation.io
        event = io.begin_request(None)
        event.user_id = sample.user_id
        took_ns = int((read_boot_clock() - began_seconds) * 1e9)
        io.end_request(event, CACHED, monotonic_ns() - took_ns, outcome=str(sample.status), amount=sample.sent_bytes)

    def _open_span(
        self,
        method: str,
        path: str,
        *,
        address: str | None,
        traceparent: str | None,
        is_proxy_address: bool = False,
    ) -> RequestSpan:
        process = self._process()
        return RequestSpan(
            method,
            path,
            io=process.observation.io,
            traffic=process.observation.traffic,
            address=address,
            traceparent=traceparent,
            is_proxy_address=is_proxy_address,
        )

    async def _answer_plain_read(self, cached: CachedRequest, scope: AsgiScope, send: Send) -> None:
        now, reader = read_boot_clock(), self._process().reads.reader
        try:
            response = reader.read_cached(cached, now=now)
        except Exception as error:  # noqa: BLE001 - last resort: every error has a response
            self._process().observation.traffic.count(CACHED_ROUTE, HTTPStatus.INTERNAL_SERVER_ERROR)
            await build_bug_response(error).send(send)
            return
        if response is None:
            client = scope.get("client")
            traceparent = find_traceparent(scope["headers"])
            from_database = await self.read(
                cached.request, address=client[0] if client else None, traceparent=traceparent
            )
            await from_database.send(send)
            return
        # Before the first await, because another read may be sampled during it.
        sample = reader.take_sample()
        await send({"type": "http.response.start", "status": response.status, "headers": response.build_headers()})
        await send({"type": "http.response.body", "body": response.body})
        if sample is not None:
            self.record_sample(sample, began_seconds=now)

    async def _handle(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        request = Request(scope, receive, scheduler=self._process().scheduler)
        address, traceparent = client[0] if client else None, find_traceparent(scope["headers"])
        is_proxy_address = self._process().callers.is_proxy_address(scope)
        with self._open_span(
            request.method,
            request.path,
            address=address,
            traceparent=traceparent,
            is_proxy_address=is_proxy_address,
        ) as span:
            sender = _Sender(send, span.request_id, request)
            try:
                await self._respond(request, sender)
            except Disconnected:
                return
            finally:
                span.status, span.sent_bytes, span.ended_ns = sender.status, sender.sent_bytes, sender.ended_ns
                span.is_stream = request.is_stream
                span.route = request.route_path or OTHER
                if request.is_probe:
                    span.is_logged = self._probed.get(request.path) != sender.status
                    self._probed[request.path] = sender.status

    async def _respond(self, request: Request, sender: _Sender) -> None:
        try:
            request.require_valid_framing()
            if self._process().settings.old_contract and await old_contract.translate(request):
                sender.extra.append(old_contract.DEPRECATION)
            reply = await self._router.dispatch(request)
            await reply.send(sender)
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - last resort: every error has a response
            await sender.send_error(build_error_response(error, request_id=current_request.get().id))

    @property
    def _router(self) -> Router:
        process = self._process()
        if self._routed is None or self._routed[0] is not process:
            self._routed = process, api.build_router(process)
        return self._routed[1]

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        """Run the lifespan protocol (ASGI specification, "Lifespan")."""
        await receive()
        has_started = False
        try:
            async with self._lifespan():
                has_started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except BaseException:
            kind = "shutdown" if has_started else "startup"
            await send({"type": f"lifespan.{kind}.failed", "message": traceback.format_exc()})
            raise
        await send({"type": "lifespan.shutdown.complete"})


class _Sender:
    """Sends a response with the request ID, to HEAD without its content. Keeps its status and size for the log."""

    def __init__(self, send: Send, request_id: str, request: Request) -> None:
        self._send = send
        self._request = request
        self.extra = [(b"request-id", request_id.encode())]
        self.status = 0
        self.sent_bytes = 0
        self.ended_ns: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # The server would wait for an unread body without a time limit. Close the connection instead.
            closing = [(b"connection", b"close")] if self._request.has_unread_body() else []
            message = {**message, "headers": [*message["headers"], *self.extra, *closing]}
        else:
            if self._request.method == "HEAD":
                message = {**message, "body": b""}
            self.sent_bytes += len(message.get("body", b""))
            self.ended_ns = monotonic_ns()
        await self._send(message)

    async def send_error(self, response: Response) -> None:
        if not self.status:  # a started response cannot be replaced
            await response.send(self)


def find_traceparent(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the `traceparent` header (W3C Trace Context)."""
    return next((value.decode("latin-1") for name, value in headers if name == b"traceparent"), None)
