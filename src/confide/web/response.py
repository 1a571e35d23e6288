"""Responses: status, headers and bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from confide import strict_json
from confide.web.asgi import Send

JSON = b"application/json"
PROBLEM = b"application/problem+json"

Headers = tuple[tuple[bytes, bytes], ...]
# Sent with every response. The documentation page has a content security policy of its own.
SAFE: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Reply(Protocol):
    """A result of a route handler: a complete response or a stream."""

    async def send(self, send: Send) -> None: ...


def format_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Format headers as HTTP/1.1 header lines."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


@dataclass(frozen=True, slots=True)
class Response:
    """One complete response."""

    body: bytes = field(repr=False)
    status: int = 200
    headers: Headers = ()
    content_type: bytes = JSON

    def build_headers(self) -> list[tuple[bytes, bytes]]:
        policy = () if any(name == POLICY[0] for name, _ in self.headers) else (POLICY,)
        content: Headers = ((b"content-type", self.content_type), (b"content-length", str(len(self.body)).encode()))
        if self.status in (204, 304):
            content = ()
        return [*content, *SAFE, *policy, *self.headers]

    def with_header(self, name: bytes, value: bytes) -> Response:
        return Response(self.body, self.status, (*self.headers, (name, value)), self.content_type)

    def as_bytes(self, extra: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Format the response, with extra headers, as HTTP/1.1 sends it."""
        status_line = b"HTTP/1.1 %d %b\r\n" % (self.status, _PHRASES[self.status])
        return status_line + format_headers((*extra, *self.build_headers())) + b"\r\n" + self.body

    async def send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.build_headers()})
        await send({"type": "http.response.body", "body": self.body})


def build_json_response(value: Mapping[str, Any], *, status: int = 200, headers: Headers = ()) -> Response:
    return Response(strict_json.write(value), status, headers)
