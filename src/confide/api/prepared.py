"""The answers of `GET /config` as bytes, prepared once for all who ask."""

from __future__ import annotations

import sys

from confide.api.answers import JSON, POLICY, SAFE, Answer, Headers
from confide.domain import configs
from confide.domain.configs import OpenedConfig
from confide.service.reading import Found

COMMON: Headers = (*SAFE, POLICY)


class Prepared:
    """One rendering of one version: its own header lines and its body, ready to be written."""

    __slots__ = ("body_at", "is_over", "raw", "size", "tag", "version")

    def __init__(self, config: OpenedConfig) -> None:
        # Names are ASCII without quotes, and the configuration is JSON as it was saved: no need to write it again.
        body = b'{"tenant":"%b","integration_type":"%b","configuration":%b}' % (
            config.key.tenant.encode(),
            config.key.integration_type.encode(),
            config.configuration,
        )
        self.is_over = False
        self.tag = config.tag.encode()
        self.version = config.version
        head = b"content-length: %d\r\n%b" % (len(body), self.kept_lines)
        self.raw = head + body
        self.body_at = len(head)
        self.size = sum(map(sys.getsizeof, (self, self.tag, self.version, self.raw, self.body_at)))

    def __repr__(self) -> str:
        return f"<version {self.version}, {self.size} bytes>"

    @property
    def body(self) -> bytes:
        return self.raw[self.body_at :]

    @property
    def kept_lines(self) -> bytes:
        """The lines that an answer without a body repeats, and the end of its head."""
        return b"etag: %b\r\nconfig-version: %d\r\n\r\n" % (self.tag, self.version)

    def own_headers(self) -> Headers:
        return ((b"etag", self.tag), (b"config-version", b"%d" % self.version))

    def headers(self) -> list[tuple[bytes, bytes]]:
        described = ((b"content-type", JSON), (b"content-length", b"%d" % (len(self.raw) - self.body_at)))
        return [*described, *COMMON, *self.own_headers()]


def answer_of(found: Found, known: str | None) -> Answer:
    """The answer to a read as the application sends it; `known` is what the caller has, of `If-None-Match`."""
    prepared: Prepared = found.answer
    headers = prepared.own_headers()
    if found.stale_seconds is not None:
        headers = (*headers, (b"config-freshness", b"stale; age=%d" % found.stale_seconds))
    if known is not None and configs.is_known(prepared.tag.decode(), known):
        return Answer(b"", 304, headers)
    return Answer(prepared.body, 200, headers)
