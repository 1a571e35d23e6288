"""The first room of a request: guards the framing, answers `/config` itself, hands on the rest."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from confide.api import configs, log_lines, old_contract, plain_reads
from confide.api.answers import Answer
from confide.api.calls import Call, Disconnected
from confide.api.errors import answer_for
from confide.api.prepared import FoundAnswer, Prepared, answer_of
from confide.api.services import Services
from confide.domain.audits import Caller
from confide.domain.errors import MethodNotAllowed, NotFound
from confide.domain.grants import Principal
from confide.ports import ANSWER_SECONDS, answer_by, caller
from confide.service.lease import running_time
from confide.service.wanted import WantedConfig

Route = Callable[[Call], Awaitable[Answer | FoundAnswer]]

# The routes that carry the load stay out of the framework.
ROUTES: dict[str, dict[str, Route]] = {
    "/config": {
        "GET": configs.read,
        "POST": configs.merge,
        "PUT": configs.replace,
        "DELETE": configs.retire,
    },
    "/configs": {"GET": configs.list_configs},
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

    async def read(self, wanted: WantedConfig, *, address: str | None) -> Answer | FoundAnswer:
        """Answer a plain read that memory may not answer alone; whatever happens, there is an answer.

        It leaves no line in the log unless it is refused: there are thousands a second.
        """
        began = time.monotonic()
        request_id = secrets.token_hex(8)
        was_caller = caller.set(Caller(address, request_id))
        was_due = answer_by.set(began + ANSWER_SECONDS)
        who: Principal | None = None
        answer: Answer | FoundAnswer
        try:
            reading = self._services().reading
            who, is_away = await reading.who(wanted.token_hash)
            found = await reading.read(wanted.key, by=who, floor=wanted.floor, is_away=is_away)
            answer = answer_of(found, wanted.known)
        except Exception as error:  # noqa: BLE001 - the last resort, which knows what to say of each
            answer = answer_for(error, request_id=request_id)
        finally:
            caller.reset(was_caller)
            answer_by.reset(was_due)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            log_lines.note("GET", "/config", answer.status, began=began, request_id=request_id, who=who)
        return answer.with_header(b"request-id", request_id.encode())

    async def _read_plainly(self, wanted: WantedConfig, scope: Scope, send: Send) -> None:
        try:
            prepared: Prepared | None = self._services().reading.at_once(wanted, now=running_time())
        except Exception as error:  # noqa: BLE001 - as in `read`
            await answer_for(error, request_id="-").send(send)
            return
        if prepared is None:
            client = scope.get("client")
            answer = await self.read(wanted, address=client[0] if client else None)
            await answer.send(send)
        elif prepared.is_known(wanted.known):
            wanted.not_modified += 1
            await Answer(b"", HTTPStatus.NOT_MODIFIED, prepared.own_headers()).send(send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": prepared.headers()})
            await send({"type": "http.response.body", "body": prepared.body})

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer within the time that a request has, under a request id, and leave a line in the log."""
        began = time.monotonic()
        request_id = secrets.token_hex(8)
        client = scope.get("client")
        was_caller = caller.set(Caller(client[0] if client else None, request_id))
        was_due = answer_by.set(began + ANSWER_SECONDS)
        call = Call(scope, receive, self._services())
        sender = _Sender(send, request_id, call)
        try:
            await self._answered(call, sender)
        except Disconnected:
            return
        finally:
            caller.reset(was_caller)
            answer_by.reset(was_due)
            log_lines.note(call.method, call.path, sender.status, began=began, request_id=request_id, who=call.who)

    async def _answered(self, call: Call, sender: _Sender) -> None:
        try:
            call.guard()
            if call.services.is_old_contract_on and await old_contract.translate(call):
                sender.extra.append(old_contract.DEPRECATION)
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

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # What was not read would be waited for, without a time limit: the connection ends with the answer.
            ending = [(b"connection", b"close")] if self._call.has_unread_body() else []
            message = {**message, "headers": [*message["headers"], *self.extra, *ending]}
        await self._send(message)

    async def refuse(self, answer: Answer) -> None:
        if not self.status:  # otherwise the answer had begun: there is nothing left to say
            await answer.send(self)
