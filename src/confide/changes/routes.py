"""HTTP routes of watching changes, by server-sent events or long polling."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from confide.changes.errors import PositionGone
from confide.changes.model import Change, Position
from confide.changes.positions import PositionFormat
from confide.clock import read_boot_clock
from confide.errors import Busy, DatabaseUnavailable, ServiceError
from confide.strict_json import Json
from confide.web.asgi import Send
from confide.web.errors import MalformedParameter
from confide.web.parameters import TENANT_PATTERN, TYPE_PATTERN, read_scope
from confide.web.request import Request
from confide.web.response import Reply, Response, build_json_response
from confide.web.route import VIEWER, Header, MediaType, Parameter, Returns, Route, declare_text
from confide.web.sse import EVENT_STREAM, format_event, send_stream_head

if TYPE_CHECKING:
    from confide.changes.watch import WatchHub
    from confide.changes.watchers import Watcher, WatchEvent

# The server disconnects a client that takes no data for this time. The client resumes from its last position.
MAX_SEND_SECONDS = 10.0
# Proxies usually end a request after 60 seconds without a response. A longer `wait` ends here too.
MAX_WAIT_SECONDS = 50
RETRY_SECONDS = 0.3

_log = logging.getLogger("confide")
_WAIT = re.compile(r"[0-9]{1,9}")


class ChangeShape(BaseModel):
    """One change."""

    event: Literal["saved", "retired", "type-changed"]
    tenant: str | None = Field(description="Null for a change of an integration type.")
    integration_type: str
    version: int
    position: str


class ChangeList(BaseModel):
    """Changes since a position."""

    events: list[ChangeShape]
    position: str = Field(description="Pass it as `after` to continue.")


def format_change(change: Change, *, format_position: Callable[[Position], str]) -> bytes:
    """Format a change as an event. Every watcher that can see it gets the same bytes."""
    position = format_position(change.position)
    return format_event(change.kind, build_change_json(change, position), id_=position)


def build_change_json(change: Change, position: str) -> Json:
    return {
        "tenant": change.tenant,
        "integration_type": change.integration_type,
        "version": change.version,
        "position": position,
    }


class WatchRoutes:
    """Handlers of the routes of watching changes."""

    def __init__(self, hub: WatchHub, positions: PositionFormat) -> None:
        self._hub = hub
        self._positions = positions

    async def watch(self, request: Request) -> Reply:
        """Start a stream. With `wait`, respond once, as soon as there are changes."""
        scope = read_scope(request)
        wait = _WAIT_SECONDS.read(request)
        start = request.find_header(b"last-event-id") or _AFTER.read(request)
        epoch = self._positions.epoch
        after = None if start is None else self._positions.parse(start)
        token = request.require_token()
        request.begin_stream()
        watcher = await self._hub.join(token, scope, after=after, epoch=epoch)
        if wait is None:
            return WatchStream(request, watcher, hub=self._hub, positions=self._positions)
        try:
            return await self._poll(watcher, until=read_boot_clock() + wait)
        finally:
            self._hub.leave(watcher)

    async def _poll(self, watcher: Watcher, *, until: float) -> Response:
        woken = asyncio.Event()
        watcher.wake = lambda **_: woken.set()
        new: list[WatchEvent] = []
        while not new and watcher.ended_by is None:
            woken.clear()
            new, position = await self._hub.read_next(watcher)
            if watcher.ended_by is not None:
                new = []  # they may belong to the next epoch; the client continues from its position
                break
            if new or position != watcher.position:
                watcher.position = position
                continue
            watcher.is_caught_up = self._hub.is_up_to_date(watcher)
            if not await _is_woken_before(woken, until):
                break
        if isinstance(watcher.ended_by, ServiceError):
            raise watcher.ended_by
        if not new:
            self._hub.skip_to_end(watcher)
        events = [
            {"event": one.change.kind, **build_change_json(one.change, self._format_position(watcher, one.position))}
            for one in new
        ]
        return build_json_response({"events": events, "position": self._format_position(watcher, watcher.position)})

    def _format_position(self, watcher: Watcher, position: Position) -> str:
        return self._positions.format(position, epoch=watcher.epoch)


async def _is_woken_before(woken: asyncio.Event, until: float) -> bool:
    try:
        async with asyncio.timeout(max(0, until - read_boot_clock())):
            await woken.wait()
    except TimeoutError:
        return False
    return True


class WatchStream:
    """One stream. A second task sends events, and exists only while there are events to send."""

    __slots__ = (
        "_abort",
        "_context",
        "_hub",
        "_is_head",
        "_is_heartbeat_due",
        "_is_woken",
        "_positions",
        "_receive",
        "_send",
        "_sender",
        "_watcher",
    )

    def __init__(self, request: Request, watcher: Watcher, *, hub: WatchHub, positions: PositionFormat) -> None:
        self._hub = hub
        self._positions = positions
        self._receive = request.receive
        self._is_head = request.method == "HEAD"
        self._abort: Callable[[], None] | None = request.scope.get("confide.abort")
        self._watcher = watcher
        self._send: Send
        self._context: contextvars.Context | None = None
        self._sender: asyncio.Task[None] | None = None
        self._is_woken = self._is_heartbeat_due = False

    async def send(self, send: Send) -> None:
        """Send events until the client disconnects, the token or its grants end, or the process drains."""
        self._send, self._context = send, contextvars.copy_context()
        try:
            await send_stream_head(send, is_complete=self._is_head)
            if self._is_head:
                return
            position = self._format_position()
            await self._write(format_event("ready", {"position": position}, id_=position))
            self._watcher.wake = self._wake
            self._wake()
            while (await self._receive())["type"] != "http.disconnect":
                pass
        finally:
            self._hub.leave(self._watcher)
            if self._sender is not None:
                self._sender.cancel()

    def _wake(self, *, is_heartbeat: bool = False) -> None:
        self._is_heartbeat_due |= is_heartbeat
        self._is_woken = True
        if self._sender is None:
            # In the context of this request, not of the task that wakes it.
            self._sender = asyncio.get_running_loop().create_task(self._send_all(), context=self._context)

    async def _send_all(self) -> None:
        try:
            while self._is_woken:
                self._is_woken = False
                try:
                    await self._send_available()
                except (DatabaseUnavailable, Busy):
                    await asyncio.sleep(RETRY_SECONDS)
                    self._is_woken = True
        except Exception as error:  # noqa: BLE001 - the client reconnects
            if not isinstance(error, TimeoutError):
                _log.exception("watch_stream_failed")
            if self._abort is not None:
                self._abort()
        finally:
            self._sender = None

    async def _send_available(self) -> None:
        """Send all available events. The position advances after the send, never before."""
        watcher = self._watcher
        while watcher.ended_by is None:
            found, position = await self._hub.read_next(watcher)
            if watcher.ended_by is not None:
                break  # the events may belong to the next epoch; the client continues from its position
            if found:
                await self._write(b"".join([event.encoded for event in found]))
            elif position == watcher.position:
                break
            watcher.position = position
        text = self._format_position()
        if watcher.ended_by is not None:
            await self._write(_format_final_event(watcher.ended_by, text))
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        watcher.is_caught_up = self._hub.is_up_to_date(watcher)
        if self._is_heartbeat_due:
            self._is_heartbeat_due = False
            await self._write(b"id: %b\n\n" % text.encode())

    def _format_position(self) -> str:
        return self._positions.format(self._watcher.position, epoch=self._watcher.epoch)

    async def _write(self, data: bytes) -> None:
        async with asyncio.timeout(MAX_SEND_SECONDS):
            await self._send({"type": "http.response.body", "body": data, "more_body": True})


def _format_final_event(reason: Exception, position: str) -> bytes:
    # When an epoch ends, the client reconnects with its position like after any other `bye`, and gets 410.
    if isinstance(reason, ServiceError) and not isinstance(reason, PositionGone):
        return format_event("refused", {"code": reason.code})
    return format_event("bye", {"position": position}, id_=position)


def _parse_wait(value: str) -> int | None:
    if not _WAIT.fullmatch(value):
        raise MalformedParameter("The parameter wait must be a whole number of seconds from 0.")
    return min(int(value), MAX_WAIT_SECONDS)


_AFTER = declare_text("after", "A position. `0` is the start of the log.")
_WAIT_SECONDS = Parameter(
    "wait",
    "Seconds: long polling. One response as soon as there are changes, after 50 s at the latest.",
    _parse_wait,
    None,
)

ROUTES: tuple[Route[WatchRoutes], ...] = (
    Route(
        "GET",
        "/watch",
        WatchRoutes.watch,
        access=VIEWER,
        operation_id="watch_changes",
        tag="configs",
        summary="Watch changes",
        description="Server-sent events: `id` is the position, `event` the kind of change, `data` the changed config,"
        " never its configuration. Each change is sent once, in order. Resume with `Last-Event-ID` or `after`; without"
        " them the stream starts now. An `id` alone every 15 seconds shows that the stream is alive. `bye` means that"
        " this process or the epoch ends, `refused` that the token is no longer valid.",
        query=(TENANT_PATTERN, TYPE_PATTERN, _AFTER, _WAIT_SECONDS),
        headers=(Header("Last-Event-ID", "The last received position. It takes precedence over `after`."),),
        returns=Returns(
            media_types=(MediaType(EVENT_STREAM), MediaType(Returns.JSON, ChangeList)), description="Events"
        ),
    ),
)
