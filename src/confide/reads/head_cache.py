"""Heads of requests that were seen before: what they ask for is known by a digest and not read again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

from confide.caching.memory import BoundedMemory
from confide.reads.request import MAX_VALUE_BYTES, READ, ReadRequest, plain_read

Headers = Sequence[tuple[bytes, bytes]]

# A whole head is remembered when it comes a second time: one that carries a number of its own never does.
PLACES = 1 << 16
MAX_LINES = 30
MAX_NAMES = 1_000

_VISIBLE = bytes(range(0x20, 0x7F)) + b"\r\n"
_NAME = re.compile(rb"[A-Za-z0-9-]+")
_REQUEST_LINE = re.compile(rb"GET /config\?([A-Za-z0-9._=&-]+) HTTP/1\.1")


class RequestHeadCache(BoundedMemory[ReadRequest]):
    """What heads ask for: by the digest of the whole, and by the digest of those lines that matter.

    A part of the memory of its own, so that heads that are all unlike each other push nothing else out.
    It takes a small part of what RFC 9112 allows: what is written otherwise, the server's parser reads.
    """

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._seen_once = bytearray(PLACES)
        # Names of header lines as they are spelled, and whether they matter.
        self._names: dict[bytes, bool] = {}

    def wanted(self, head: bytes) -> ReadRequest | None:
        """What the whole head of one request asks for; None if it is no plain read."""
        digest = sha256(head).digest()
        # As `_used` does, without one more call.
        wanted = self._held.get(digest)
        if wanted is not None:
            if not wanted.reads:
                self._held.move_to_end(digest)
            return wanted
        lines = self._lines_that_matter(head)
        if lines is None:
            return None
        wanted = self._of_lines(lines)
        if wanted is not None:
            self._note(digest, wanted)
        return wanted

    def wanted_by(self, query: bytes, headers: Headers) -> ReadRequest | None:
        """What a `GET /config` asks for that a server has read already; its header names are in lower case."""
        if len(headers) > MAX_LINES:
            return None
        parts = [query]
        for name, value in headers:
            if len(value) > MAX_VALUE_BYTES:
                return None
            if name in READ:
                parts += (name, value)
        digest = sha256(b"\0".join(parts)).digest()
        known = self._used(digest)
        if known is None:
            known = plain_read(query, headers)
            if known is not None:
                self.put(digest, known)
        return known

    def _used(self, digest: bytes) -> ReadRequest | None:
        wanted = self._held.get(digest)
        # The first read since they were last added up tells that it is in use.
        if wanted is not None and not wanted.reads:
            self._held.move_to_end(digest)
        return wanted

    def _of_lines(self, lines: list[bytes]) -> ReadRequest | None:
        digest = sha256(b"\n".join(lines)).digest()
        known = self._used(digest)
        if known is not None:
            return known
        line = _REQUEST_LINE.fullmatch(lines[0])
        headers = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines[1:])]
        wanted = plain_read(line[1], headers) if line else None
        if wanted is not None:
            self.put(digest, wanted)
        return wanted

    def _lines_that_matter(self, head: bytes) -> list[bytes] | None:
        """The request line and the header lines that a plain read looks at; None if any is not as usual."""
        lines = head.split(b"\r\n")
        ends = len(lines) - 1
        if lines[-2:] != [b"", b""] or ends > MAX_LINES or head.count(b"\n") != ends or head.count(b"\r") != ends:
            return None
        if head.translate(None, _VISIBLE):
            return None
        kept = lines[:1]
        for line in lines[1:-2]:
            name, colon, _ = line.partition(b": ")
            if not colon:
                return None
            matters = self._names.get(name)
            if matters is None:
                if not _NAME.fullmatch(name):
                    return None
                matters = name.lower() in READ
                if len(self._names) < MAX_NAMES:
                    self._names[name] = matters
            if matters:
                kept.append(line)
        return kept

    def _note(self, digest: bytes, wanted: ReadRequest) -> None:
        """Remember the whole, if it was seen before: a byte of its digest stands in the place that two others name."""
        place, sign = digest[0] << 8 | digest[1], digest[2] or 1
        if self._seen_once[place] == sign:
            self.put(digest, wanted)
        else:
            self._seen_once[place] = sign
