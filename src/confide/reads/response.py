"""Responses to `GET /config` as bytes, prepared once per version and rendering."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NamedTuple

from confide import preconditions
from confide.reads.model import RenderedConfig
from confide.web.asgi import Send
from confide.web.response import JSON, POLICY, SAFE, Headers, Response, format_headers

COMMON_HEADERS: Headers = (*SAFE, POLICY)
CONTENT_HEADERS: Headers = ((b"content-type", JSON), *COMMON_HEADERS)
COMMON_LINES, CONTENT_LINES = format_headers(COMMON_HEADERS), format_headers(CONTENT_HEADERS)
STATUS_200, STATUS_304 = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 304 Not Modified\r\n"
# Memory of a prepared response without its tag and its bytes.
OBJECT_BYTES = 350


class PreparedResponse:
    """A 200 response with one rendering of one version.

    `raw` holds the header lines that only this response has, the empty line and the body. The status line and the
    common headers come before it.
    """

    __slots__ = (
        "_body_at",
        "_tag_lines_at",
        "config_slot",
        "config_stamp",
        "epoch",
        "is_invalid",
        "length",
        "raw",
        "size_bytes",
        "tag",
        "type_slot",
        "type_stamp",
        "version",
    )
    status = 200
    is_not_modified = False

    def __init__(self, config: RenderedConfig) -> None:
        key = config.stored.key
        # Names are ASCII without quotes and the configuration is JSON already, so nothing needs escaping.
        body = b'{"tenant":"%b","integration_type":"%b","configuration":%b}' % (
            key.tenant.encode(),
            key.integration_type.encode(),
            config.configuration,
        )
        # Set when the cache entry is invalidated.
        self.is_invalid = False
        # The slots of the config and its type, and the stamps of the cache entry.
        self.config_slot, self.type_slot = config.stamps.slots[:2]
        self.config_stamp, self.type_stamp = config.stamps.stamps[:2]
        rendering = config.rendering
        self.tag = preconditions.format_tag(
            config.stored.version,
            config.type_version,
            epoch=config.epoch,
            is_masked=rendering.is_masked,
            has_defaults=rendering.has_defaults,
        )
        self.version = config.stored.version
        self.epoch = config.epoch
        length_line = b"content-length: %d\r\n" % len(body)
        tag_lines = b"etag: %b\r\nconfig-version: %d\r\n\r\n" % (self.tag.encode(), self.version)
        self.raw = length_line + tag_lines + body
        self._tag_lines_at, self._body_at = len(length_line), len(length_line) + len(tag_lines)
        self.length = len(body)
        self.size_bytes = OBJECT_BYTES + sys.getsizeof(self.tag) + sys.getsizeof(self.raw)

    def __repr__(self) -> str:
        return f"<version {self.version}, {self.size_bytes} bytes>"

    @property
    def body(self) -> bytes:
        return self.raw[self._body_at :]

    def is_known(self, known_tags: str | None) -> bool:
        """Return whether the tags of `If-None-Match` include this version."""
        return known_tags is not None and (known_tags == self.tag or preconditions.is_tag_matched(self.tag, known_tags))

    def to_not_modified(self) -> NotModified:
        """Return the 304 response for a client that knows this version."""
        return NotModified(self.raw[self._tag_lines_at : self._body_at], (*COMMON_HEADERS, *self.build_tag_headers()))

    def build_tag_headers(self) -> Headers:
        return ((b"etag", self.tag.encode()), (b"config-version", b"%d" % self.version))

    def build_headers(self) -> Headers:
        return (*CONTENT_HEADERS, (b"content-length", b"%d" % self.length), *self.build_tag_headers())


class NotModified:
    """A 304 response. `raw` holds the header lines with the tag, and the empty line."""

    __slots__ = ("_headers", "raw")
    status = 304
    is_not_modified = True
    length = 0
    body = b""

    def __init__(self, raw: bytes, headers: Headers) -> None:
        self.raw = raw
        self._headers = headers

    def build_headers(self) -> Headers:
        return self._headers


class ReadResult(NamedTuple):
    """A response to a read. `stale_seconds` is set if the response is stale: its age."""

    response: PreparedResponse
    stale_seconds: int | None = None


class ConfigResponse:
    """A prepared response with extra headers of one request."""

    __slots__ = ("_extra", "_prepared")
    status = 200

    def __init__(self, prepared: PreparedResponse, extra: Headers) -> None:
        self._prepared = prepared
        self._extra = extra

    @property
    def body(self) -> bytes:
        return self._prepared.body

    def with_header(self, name: bytes, value: bytes) -> ConfigResponse:
        return ConfigResponse(self._prepared, (*self._extra, (name, value)))

    def as_bytes(self, extra: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Format the response, with extra headers, as HTTP/1.1 sends it."""
        return STATUS_200 + format_headers((*extra, *self._extra)) + CONTENT_LINES + self._prepared.raw

    async def send(self, send: Send) -> None:
        headers = (*self._prepared.build_headers(), *self._extra)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._prepared.body})


def build_response(result: ReadResult, known_tags: str | None) -> Response | ConfigResponse:
    """Build the response to a read; `known_tags` is the value of `If-None-Match`."""
    prepared = result.response
    extra: Headers = ()
    if result.stale_seconds is not None:
        extra = ((b"config-freshness", b"stale; age=%d" % result.stale_seconds),)
    if prepared.is_known(known_tags):
        return Response(b"", 304, (*prepared.build_tag_headers(), *extra))
    return ConfigResponse(prepared, extra)
