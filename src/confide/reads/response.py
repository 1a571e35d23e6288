"""The answers of `GET /config` as bytes, prepared once for all who ask."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from confide import preconditions
from confide.configs.model import DecryptedConfig
from confide.reads.reader import ReadResult
from confide.web.asgi import Send
from confide.web.response import JSON, POLICY, SAFE, Headers, Response, format_headers

COMMON: Headers = (*SAFE, POLICY)
DESCRIBED: Headers = ((b"content-type", JSON), *COMMON)
COMMON_LINES, DESCRIBED_LINES = format_headers(COMMON), format_headers(DESCRIBED)
FOUND, NOT_MODIFIED = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 304 Not Modified\r\n"
# An answer with its five numbers, without its tag and its bytes.
OBJECT_BYTES = 250


class PreparedResponse:
    """One rendering of one version: its own header lines and its body, ready to be written."""

    __slots__ = ("body_at", "is_over", "kept_at", "length", "raw", "size", "tag", "version")

    def __init__(self, config: DecryptedConfig) -> None:
        # Names are ASCII without quotes, and the configuration is JSON as it was saved: no need to write it again.
        body = b'{"tenant":"%b","integration_type":"%b","configuration":%b}' % (
            config.key.tenant.encode(),
            config.key.integration_type.encode(),
            config.configuration,
        )
        self.is_over = False
        self.tag = config.tag
        self.version = config.version
        described = b"content-length: %d\r\n" % len(body)
        kept = b"etag: %b\r\nconfig-version: %d\r\n\r\n" % (self.tag.encode(), self.version)
        self.raw = described + kept + body
        self.kept_at, self.body_at = len(described), len(described) + len(kept)
        self.length = len(body)
        self.size = OBJECT_BYTES + sys.getsizeof(self.tag) + sys.getsizeof(self.raw)

    def __repr__(self) -> str:
        return f"<version {self.version}, {self.size} bytes>"

    @property
    def body(self) -> bytes:
        return self.raw[self.body_at :]

    @property
    def kept_lines(self) -> bytes:
        """The lines that an answer without a body repeats, and the end of its head."""
        return self.raw[self.kept_at : self.body_at]

    def is_known(self, known: str | None) -> bool:
        """Whether the caller has it already, by the tags of `If-None-Match`."""
        return known is not None and (known == self.tag or preconditions.is_tag_matched(self.tag, known))

    def own_headers(self) -> Headers:
        return ((b"etag", self.tag.encode()), (b"config-version", b"%d" % self.version))

    def headers(self) -> Headers:
        return (*DESCRIBED, (b"content-length", b"%d" % self.length), *self.own_headers())


class ConfigResponse:
    """A prepared answer with header lines that are this request's own; sent like any other answer."""

    __slots__ = ("_more", "_prepared")
    status = 200

    def __init__(self, prepared: PreparedResponse, more: Headers) -> None:
        self._prepared = prepared
        self._more = more

    @property
    def body(self) -> bytes:
        return self._prepared.body

    def with_header(self, name: bytes, value: bytes) -> ConfigResponse:
        return ConfigResponse(self._prepared, (*self._more, (name, value)))

    def as_bytes(self, more: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The answer as HTTP/1.1 writes it, with more headers."""
        return FOUND + format_headers((*more, *self._more)) + DESCRIBED_LINES + self._prepared.raw

    async def send(self, send: Send) -> None:
        headers = (*self._prepared.headers(), *self._more)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._prepared.body})


def answer_of(found: ReadResult, known: str | None) -> Response | ConfigResponse:
    """The answer to a read as the application sends it; `known` is what the caller has, of `If-None-Match`."""
    prepared: PreparedResponse = found.answer
    more: Headers = ()
    if found.stale_seconds is not None:
        more = ((b"config-freshness", b"stale; age=%d" % found.stale_seconds),)
    if prepared.is_known(known):
        return Response(b"", 304, (*prepared.own_headers(), *more))
    return ConfigResponse(prepared, more)
