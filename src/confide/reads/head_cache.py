"""Find the cached read of a request head by a digest, without parsing it again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

from confide.caching.memory import BoundedMemory
from confide.reads.reader import CachedRead
from confide.reads.request import MAX_VALUE_BYTES, RELEVANT_HEADERS, parse_plain_read

Headers = Sequence[tuple[bytes, bytes]]

# A whole head is cached when it repeats: heads with a unique number (a trace ID) never do.
SEEN_SLOTS = 1 << 16
MAX_LINES = 30
MAX_NAMES = 1_000

_VISIBLE = bytes(range(0x20, 0x7F)) + b"\r\n"
_NAME = re.compile(rb"[A-Za-z0-9-]+")
_REQUEST_LINE = re.compile(rb"GET /config\?([A-Za-z0-9._=&-]+) HTTP/1\.1")


class RequestHeadCache(BoundedMemory[CachedRead]):
    """Cached reads by the digest of the whole head, and by the digest of its relevant lines.

    It has a memory limit of its own, so that unique heads evict no configs. It accepts a small part of
    RFC 9112; the server's parser reads other heads.
    """

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._seen_once = bytearray(SEEN_SLOTS)
        # Header names as spelled, and whether they are relevant.
        self._names: dict[bytes, bool] = {}

    def find(self, head: bytes) -> CachedRead | None:
        """Return the cached read of a complete request head, or None if it is not a plain read."""
        digest = sha256(head).digest()
        # Inlines `_find_used`, which saves a call on the fast path.
        found = self._held.get(digest)
        if found is not None:
            if not found.reads:
                self._held.move_to_end(digest)
            return found
        lines = self._select_lines(head)
        if lines is None:
            return None
        found = self._find_by_lines(lines)
        if found is not None:
            self._cache_repeated(digest, found)
        return found

    def find_parsed(self, query: bytes, headers: Headers) -> CachedRead | None:
        """Return the cached read of a `GET /config` that a server has parsed; header names are in lower case."""
        if len(headers) > MAX_LINES:
            return None
        parts = [query]
        for name, value in headers:
            if len(value) > MAX_VALUE_BYTES:
                return None
            if name in RELEVANT_HEADERS:
                parts += (name, value)
        digest = sha256(b"\0".join(parts)).digest()
        return self._find_used(digest) or self._parse(digest, query, headers)

    def _find_used(self, digest: bytes) -> CachedRead | None:
        found = self._held.get(digest)
        # Moving once per count is enough to keep the order of use.
        if found is not None and not found.reads:
            self._held.move_to_end(digest)
        return found

    def _find_by_lines(self, lines: list[bytes]) -> CachedRead | None:
        digest = sha256(b"\n".join(lines)).digest()
        found = self._find_used(digest)
        if found is not None:
            return found
        line = _REQUEST_LINE.fullmatch(lines[0])
        headers = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines[1:])]
        return self._parse(digest, line[1], headers) if line else None

    def _parse(self, digest: bytes, query: bytes, headers: Headers) -> CachedRead | None:
        request = parse_plain_read(query, headers)
        if request is None:
            return None
        read = CachedRead(request)
        self.put(digest, read)
        return read

    def _select_lines(self, head: bytes) -> list[bytes] | None:
        """Return the request line and the relevant header lines, or None if a line is unusual."""
        lines = head.split(b"\r\n")
        count = len(lines) - 1
        if lines[-2:] != [b"", b""] or count > MAX_LINES or head.count(b"\n") != count or head.count(b"\r") != count:
            return None
        if head.translate(None, _VISIBLE):
            return None
        selected = lines[:1]
        for line in lines[1:-2]:
            name, colon, _ = line.partition(b": ")
            if not colon:
                return None
            is_relevant = self._names.get(name)
            if is_relevant is None:
                if not _NAME.fullmatch(name):
                    return None
                is_relevant = name.lower() in RELEVANT_HEADERS
                if len(self._names) < MAX_NAMES:
                    self._names[name] = is_relevant
            if is_relevant:
                selected.append(line)
        return selected

    def _cache_repeated(self, digest: bytes, found: CachedRead) -> None:
        """Cache the whole head if it was seen before, by a byte of its digest at the slot that two others choose."""
        slot, mark = digest[0] << 8 | digest[1], digest[2] or 1
        if self._seen_once[slot] == mark:
            self.put(digest, found)
        else:
            self._seen_once[slot] = mark
