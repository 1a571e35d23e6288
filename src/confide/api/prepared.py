"""The answers of `GET /config` as bytes, prepared once for all who ask."""

from __future__ import annotations

import sys

from confide.api.answers import JSON, POLICY, SAFE, Answer, Headers
from confide.domain import configs
from confide.domain.configs import OpenedConfig
from confide.service.reading import Found

COMMON: Headers = (*SAFE, POLICY)
DESCRIBED: Headers = ((b"content-type", JSON), *COMMON)
# An answer with its five numbers, without its tag and its bytes.
OBJECT_BYTES = 250


class Prepared:
    """One rendering of one version: its own header lines and its body, ready to be written."""

    __slots__ = ("body_at", "is_over", "kept_at", "length", "raw", "size", "tag", "version")

    def __init__(self, config: OpenedConfig) -> None:
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
        return known is not None and (known == self.tag or configs.is_known(self.tag, known))

    def own_headers(self) -> Headers:
        return ((b"etag", self.tag.encode()), (b"config-version", b"%d" % self.version))

    def headers(self) -> Headers:
        return (*DESCRIBED, (b"content-length", b"%d" % self.length), *self.own_headers())


def answer_of(found: Found, known: str | None) -> Answer:
    """The answer to a read as the application sends it; `known` is what the caller has, of `If-None-Match`."""
    prepared: Prepared = found.answer
    headers = prepared.own_headers()
    if found.stale_seconds is not None:
        headers = (*headers, (b"config-freshness", b"stale; age=%d" % found.stale_seconds))
    if prepared.is_known(known):
        return Answer(b"", 304, headers)
    return Answer(prepared.body, 200, headers)
