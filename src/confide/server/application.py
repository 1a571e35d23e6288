"""The first room of a request: guards the framing, answers `/config` itself, hands on the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from time import monotonic_ns
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from confide.changes import routes as watch
from confide.clock import boottime
from confide.configs import routes as configs
from confide.context import caller
from confide.errors import NotFound
from confide.reads import request as plain_reads
from confide.reads.request import ReadRequest
from confide.reads.response import ConfigResponse, PreparedResponse, answer_of
from confide.server import legacy
from confide.server.services import Services
from confide.web.errors import MethodNotAllowed
from confide.web.problems import answer_for, bug
from confide.web.request import Call, Disconnected
from confide.web.request_scope import OTHER, RequestScope, is_asked_by
from confide.web.response import Answer

Route = Callable[[Call], Awaitable[Answer | ConfigResponse | watch.WatchStream]]

CACHED_ROUTE = "GET /config"
CACHED = f"cached {CACHED_ROUTE}"
# The routes that carry the load stay out of the framework.
ROUTES: dict[str, dict[str, Route]] = {
    "/config": {
        "GET": configs.read,
        "POST": configs.merge,
        "PUT": configs.replace,
        "DELETE": configs.retire,
    },
    "/config/usage": {"GET": configs.usage},
    "/configs": {"GET": configs.list_configs},
    "/configs/export": {"GET": configs.export},
    "/watch": {"GET": watch.watch},
}


class Door:
    """The outermost ASGI application. Nothing behind it sees a request that is not well framed."""

    def __init__(self, behind: FastAPI, services: Callable[[], Services]) -> None:
        self._behind = behind
        self._services = services

    def document(self) -> dict[str, Any]:
        """The OpenAPI document of everything that is answered here and behind."""
        return self._behind.openapi()

    @property
    def services(self) -> Services:
        return self._services()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._behind(scope, receive, send)
            return
        if scope["method"] == "GET" and scope["raw_path"] == plain_reads.PATH:
            wanted = self._services().heads.wanted_by(scope["query_string"], scope["headers"])
            if wanted is not None:
                await self._read_plainly(wanted, scope, send)
                return
        await self._in_time(scope, receive, send)

    async def read(
        self, wanted: ReadRequest, *, address: str | None, traceparent: str | None
    ) -> Answer | ConfigResponse:
        """Answer a plain read that memory may not answer alone; whatever happens, there is an answer.

        It leaves no line in the log unless it is refused: there are thousands a second.
        """
        reading = self._services().reading
        answer: Answer | ConfigResponse
        with self._under_way("GET", "/config", address=address, traceparent=traceparent) as request:
            request.route, request.is_logged = "/config", False
            try:
                request.who, is_away = await reading.who(wanted.token_hash)
                is_asked_by(request.who)
                found = await reading.read(wanted.key, by=request.who, floor=wanted.floor, is_away=is_away)
                answer = answer_of(found, wanted.known)
            except Exception as error:  # noqa: BLE001 - the last resort, which knows what to say of each
                answer = answer_for(error, request_id=request.request_id)
            request.status, request.sent_bytes = answer.status, len(answer.body)
        return answer.with_header(b"request-id", request.request_id.encode())

    def note_sample(self, wanted: ReadRequest, *, began: float, status: int) -> None:
        """Note one of many reads that memory answered alone; `began` is `boottime`."""
        services = self._services()
        services.reading.begin_sample()
        sample = services.io.begin(None)
        sample.user_id = None if wanted.checked is None else wanted.checked.principal.user_id
        took = int((boottime() - began) * 1e9)
        amount = wanted.length if status == HTTPStatus.OK else 0
        services.io.end(sample, CACHED, monotonic_ns() - took, outcome=str(status), amount=amount)

    def _under_way(self, method: str, path: str, *, address: str | None, traceparent: str | None) -> RequestScope:
        services = self._services()
        return RequestScope(
            method, path, io=services.io, traffic=services.traffic, address=address, traceparent=traceparent
        )

    async def _read_plainly(self, wanted: ReadRequest, scope: Scope, send: Send) -> None:
        now, reading = boottime(), self._services().reading
        try:
            prepared: PreparedResponse | None = reading.at_once(wanted, now=now)
        except Exception as error:  # noqa: BLE001 - as in `read`
            self._services().traffic.note(CACHED_ROUTE, HTTPStatus.INTERNAL_SERVER_ERROR)
            await bug(error).send(send)
            return
        if prepared is None:
            client = scope.get("client")
            traceparent = traceparent_of(scope["headers"])
            answer = await self.read(wanted, address=client[0] if client else None, traceparent=traceparent)
            await answer.send(send)
            return
        if prepared.is_known(wanted.known):
            wanted.not_modified += 1
            await Answer(b"", HTTPStatus.NOT_MODIFIED, prepared.own_headers()).send(send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": prepared.headers()})
            await send({"type": "http.response.body", "body": prepared.body})
        if reading.is_sample():
            self.note_sample(wanted, began=now, status=304 if prepared.is_known(wanted.known) else 200)

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer within the time that a request has, under a request id, and leave a line in the log."""
        client = scope.get("client")
        call = Call(scope, receive, self._services())
        address, traceparent = client[0] if client else None, traceparent_of(scope["headers"])
        with self._under_way(call.method, call.path, address=address, traceparent=traceparent) as request:
            sender = _Sender(send, request.request_id, call)
            try:
                await self._answered(call, sender)
            except Disconnected:
                return
            finally:
                request.status, request.sent_bytes, request.ended = sender.status, sender.sent_bytes, sender.ended
                request.who, request.is_stream, request.route = call.who, call.is_stream, _route_of(call)

    async def _answered(self, call: Call, sender: _Sender) -> None:
        try:
            call.guard()
            if call.services.is_old_contract_on and await legacy.translate(call):
                sender.extra.append(legacy.DEPRECATION)
            await self._routed(call, sender)
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - the last resort, which knows what to say of each
            await sender.refuse(answer_for(error, request_id=caller.get().request_id))

    async def _routed(self, call: Call, sender: _Sender) -> None:
        # One spelling of each path: no second door by way of escapes or doubled slashes.
        raw_path: bytes = call.scope["raw_path"]
        if raw_path != call.path.encode() or b"//" in raw_path:
            raise NotFound
        routes = ROUTES.get(call.path)
        if routes is None:
            call.scope["confide.call"] = call
            await self._behind(call.scope, call.receive, sender)
            return
        route = routes.get(call.method)
        if route is None:
            sender.extra.append((b"allow", ", ".join(routes).encode()))
            raise MethodNotAllowed
        answer = await route(call)
        await answer.send(sender)


class _Sender:
    """Sends an answer with the request id, and remembers its status for the log."""

    def __init__(self, send: Send, request_id: str, call: Call) -> None:
        self._send = send
        self._call = call
        self.extra = [(b"request-id", request_id.encode())]
        self.status = 0
        self.sent_bytes = 0
        self.ended: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # What was not read would be waited for, without a time limit: the connection ends with the answer.
            ending = [(b"connection", b"close")] if self._call.has_unread_body() else []
            message = {**message, "headers": [*message["headers"], *self.extra, *ending]}
        else:
            self.sent_bytes += len(message.get("body", b""))
            self.ended = monotonic_ns()
        await self._send(message)

    async def refuse(self, answer: Answer) -> None:
        if not self.status:  # otherwise the answer had begun: there is nothing left to say
            await answer.send(self)


def traceparent_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The header by which a caller says to which trace a request belongs."""
    return next((value.decode("latin-1") for name, value in headers if name == b"traceparent"), None)


def _route_of(call: Call) -> str:
    if call.path in ROUTES:
        return call.path
    route = call.scope.get("route")
    return OTHER if route is None else str(route.path)
