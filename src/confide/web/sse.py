"""Server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from confide import strict_json
from confide.web.asgi import Send
from confide.web.request import Request
from confide.web.response import POLICY, SAFE, Headers

EVENT_STREAM = "text/event-stream"
# `X-Accel-Buffering` lets nginx pass each event on at once, also if it compresses the stream.
HEADERS: Headers = ((b"content-type", EVENT_STREAM.encode()), (b"x-accel-buffering", b"no"), *SAFE, POLICY)


def format_event(name: str, data: Mapping[str, Any], *, id_: str | None = None) -> bytes:
    """Format one event."""
    number = b"" if id_ is None else b"id: %b\n" % id_.encode()
    return b"%bevent: %b\ndata: %b\n\n" % (number, name.encode(), strict_json.write(data))


async def send_stream_head(send: Send, *, is_complete: bool) -> None:
    """Send the status and the headers of a stream. It is complete if the request was HEAD."""
    await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
    if is_complete:
        await send({"type": "http.response.body", "body": b""})


class EventStream:
    """A response that sends events as they are produced, until they end or the client disconnects."""

    def __init__(self, request: Request, events: AsyncIterator[bytes]) -> None:
        self._receive = request.receive
        self._is_head = request.method == "HEAD"
        self._events = events

    async def send(self, send: Send) -> None:
        writer = asyncio.create_task(self._write(send))
        disconnect = asyncio.create_task(self._wait_for_disconnect())
        try:
            await asyncio.wait((writer, disconnect), return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()
        finally:
            for task in (writer, disconnect):
                task.cancel()
            await asyncio.gather(writer, disconnect, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        await send_stream_head(send, is_complete=self._is_head)
        if self._is_head:
            return
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
