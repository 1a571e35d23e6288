"""Answers that go on: server-sent events (WHATWG HTML, 9.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import Response, StreamingResponse

from confide import strict_json
from confide.web.response import POLICY, SAFE, Headers

EVENTS = b"text/event-stream"
HEADERS: Headers = ((b"content-type", EVENTS), *SAFE, POLICY)


def event(name: str, data: Mapping[str, Any], *, id_: str | None = None) -> bytes:
    """One event as it is written."""
    number = b"" if id_ is None else b"id: %b\n" % id_.encode()
    return b"%bevent: %b\ndata: %b\n\n" % (number, name.encode(), strict_json.write(data))


class EventStream:
    """An answer of events, sent as they come."""

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        self._events = events

    def as_response(self) -> Response:
        response = StreamingResponse(self._events)
        response.raw_headers = list(HEADERS)
        return response
