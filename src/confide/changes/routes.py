"""`/watch`: changes as they happen, as server-sent events or by asking again and again."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
from collections.abc import Callable
from typing import Any

from starlette.types import Send

from confide.changes.model import Change, Position
from confide.changes.watchers import Watcher, WatchEvent
from confide.clock import boottime
from confide.configs.routes import ADDRESS
from confide.errors import Busy, DatabaseUnavailable, ServiceError
from confide.identity import model, token_format
from confide.identity.errors import InvalidToken
from confide.web.errors import MalformedParameter
from confide.web.request import Call
from confide.web.response import Answer, json_answer
from confide.web.sse import HEADERS, event

# Who takes nothing for so long is let go, and goes on later from where they were.
SLOW_SECONDS = 10.0
MAX_WAIT_SECONDS = 60
# How soon the store is asked again.
AGAIN_SECONDS = 0.3

_log = logging.getLogger("confide")
_WAIT = re.compile(r"[0-9]{1,2}")


def written(change: Change, *, position: Callable[[Position], str]) -> bytes:
    """A change as an event, the same bytes for everybody who may hear of it."""
    place = position(change.position)
    return event(change.kind, told_of(change, place), id_=place)


def told_of(change: Change, place: str) -> dict[str, Any]:
    return {
        "tenant": change.tenant,
        "integration_type": change.integration_type,
        "version": change.version,
        "position": place,
    }


async def watch(call: Call) -> Answer | WatchStream:
    """Begin a stream, or with `wait` answer once there is something to tell."""
    token_hash = token_format.token_hash(call.token())
    if token_hash is None:
        raise InvalidToken
    call.require_no_body()
    asked = call.parameters(known=(*ADDRESS, "after", "wait"))
    scope = model.scope(asked.get("tenant", "*"), asked.get("integration_type", "*"))
    wait = _wait(asked.get("wait"))
    begun = call.header(b"last-event-id") or asked.get("after")
    after = None if begun is None else call.services.position_of(begun)
    call.take_time()
    watching = call.services.watching
    watcher = await watching.join(token_hash, scope, after=after)
    call.who = watcher.checked.principal
    if wait is None:
        return WatchStream(call, watcher)
    try:
        return await _waited(call, watcher, until=boottime() + wait)
    finally:
        watching.leave(watcher)


async def _waited(call: Call, watcher: Watcher, *, until: float) -> Answer:
    poked = asyncio.Event()
    watcher.poke = lambda **_: poked.set()
    watching, place = call.services.watching, call.services.position
    found: list[WatchEvent] = []
    while not found and watcher.is_over is None:
        poked.clear()
        found, position = await watching.next_for(watcher)
        if found or position != watcher.position:
            watcher.position = position
            continue
        watcher.is_live = watching.is_up_to_date(watcher)
        if not await _poked_before(poked, until):
            break
    if isinstance(watcher.is_over, ServiceError):
        raise watcher.is_over
    if not found:
        watching.settle(watcher)
    events = [{"event": told.change.kind, **told_of(told.change, place(told.position))} for told in found]
    return json_answer({"events": events, "position": place(watcher.position)})


async def _poked_before(poked: asyncio.Event, until: float) -> bool:
    try:
        async with asyncio.timeout(max(0, until - boottime())):
            await poked.wait()
    except TimeoutError:
        return False
    return True


class WatchStream:
    """One stream. A task waits for the caller to leave; a second one lives only while there is something to send."""

    __slots__ = (
        "_abort",
        "_context",
        "_is_beat_due",
        "_is_poked",
        "_place",
        "_pump",
        "_receive",
        "_send",
        "_watcher",
        "_watching",
    )

    def __init__(self, call: Call, watcher: Watcher) -> None:
        self._watching = call.services.watching
        self._place = call.services.position
        self._receive = call.receive
        self._abort: Callable[[], None] | None = call.scope.get("confide.abort")
        self._watcher = watcher
        self._send: Any = None
        self._context: contextvars.Context | None = None
        self._pump: asyncio.Task[None] | None = None
        self._is_poked = self._is_beat_due = False

    async def send(self, send: Send) -> None:
        """Send events until the caller leaves, the token or its grants end, or this process does."""
        self._send, self._context = send, contextvars.copy_context()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            place = self._place(self._watcher.position)
            await self._write(event("ready", {"position": place}, id_=place))
            self._watcher.poke = self._poke
            self._poke()
            while (await self._receive())["type"] != "http.disconnect":
                pass
        finally:
            self._watching.leave(self._watcher)
            if self._pump is not None:
                self._pump.cancel()

    def _poke(self, *, is_beat: bool = False) -> None:
        self._is_beat_due |= is_beat
        self._is_poked = True
        if self._pump is None:
            # Whoever pokes: what is done is done for this request.
            self._pump = asyncio.get_running_loop().create_task(self._tell_all(), context=self._context)

    async def _tell_all(self) -> None:
        try:
            while self._is_poked:
                self._is_poked = False
                try:
                    await self._tell()
                except (DatabaseUnavailable, Busy):
                    await asyncio.sleep(AGAIN_SECONDS)
                    self._is_poked = True
        except Exception as error:  # noqa: BLE001 - the last resort: who is cut off comes again
            if not isinstance(error, TimeoutError):
                _log.exception("a bug, met while telling a watcher")
            if self._abort is not None:
                self._abort()
        finally:
            self._pump = None

    async def _tell(self) -> None:
        """Tell everything there is; the position moves once it is sent, never before."""
        watcher = self._watcher
        while watcher.is_over is None:
            found, position = await self._watching.next_for(watcher)
            if found:
                await self._write(b"".join([told.written for told in found]))
            elif position == watcher.position:
                break
            watcher.position = position
        place = self._place(watcher.position)
        if watcher.is_over is not None:
            await self._write(_last_words(watcher.is_over, place))
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        watcher.is_live = self._watching.is_up_to_date(watcher)
        if self._is_beat_due:
            self._is_beat_due = False
            await self._write(b"id: %b\n\n" % place.encode())

    async def _write(self, data: bytes) -> None:
        async with asyncio.timeout(SLOW_SECONDS):
            await self._send({"type": "http.response.body", "body": data, "more_body": True})


def _last_words(why: Exception, place: str) -> bytes:
    if isinstance(why, ServiceError):
        return event("refused", {"code": why.code})
    return event("bye", {"position": place}, id_=place)


def _wait(text: str | None) -> int | None:
    if text is None:
        return None
    if not _WAIT.fullmatch(text) or int(text) > MAX_WAIT_SECONDS:
        raise MalformedParameter(f"The parameter wait is a number of seconds from 0 to {MAX_WAIT_SECONDS}.")
    return int(text)
