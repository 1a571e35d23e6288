"""Answers as they go out: status, headers, bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import Send

from confide import strict_json

JSON = b"application/json"
PROBLEM = b"application/problem+json"

Headers = tuple[tuple[bytes, bytes], ...]
# On every answer, the documentation page's own policy aside.
SAFE: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as HTTP/1.1 writes them."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer."""

    body: bytes = field(repr=False)
    status: int = 200
    headers: Headers = ()
    content_type: bytes = JSON

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        policy = () if any(name == POLICY[0] for name, _ in self.headers) else (POLICY,)
        described: Headers = ((b"content-type", self.content_type), (b"content-length", str(len(self.body)).encode()))
        if self.status in (204, 304):
            described = ()
        return [*described, *SAFE, *policy, *self.headers]

    def with_header(self, name: bytes, value: bytes) -> Answer:
        return Answer(self.body, self.status, (*self.headers, (name, value)), self.content_type)

    def as_bytes(self, more: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The answer as HTTP/1.1 writes it, with more headers."""
        begin = b"HTTP/1.1 %d %b\r\n" % (self.status, _PHRASES[self.status])
        return begin + lines_of((*more, *self.all_headers())) + b"\r\n" + self.body

    async def send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.all_headers()})
        await send({"type": "http.response.body", "body": self.body})

    def as_response(self) -> Response:
        response = Response(self.body, self.status)
        response.raw_headers = self.all_headers()
        return response


def json_answer(value: Mapping[str, Any], *, status: int = 200, headers: Headers = ()) -> Answer:
    return Answer(strict_json.write(value), status, headers)
