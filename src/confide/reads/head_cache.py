"""The request head cache: find the parsed request of a repeated request head by its digest."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from hashlib import sha256

from confide.caching.lru_cache import LruCache
from confide.reads.plain_read import MAX_READ_HEADERS, MAX_VALUE_BYTES, RELEVANT_HEADERS, parse_plain_read
from confide.reads.reader import CachedRequest

Headers = Sequence[tuple[bytes, bytes]]

# A whole head is cached only when it repeats. A head with a unique value, such as a trace ID, never does.
SEEN_SLOTS = 1 << 16
# The request line, the headers and the empty line.
MAX_LINES = MAX_READ_HEADERS + 2
MAX_KNOWN_NAMES = 1_000

_VISIBLE = bytes(range(0x20, 0x7F)) + b"\r\n"
_NAME = re.compile(rb"[A-Za-z0-9-]+")
_REQUEST_LINE = re.compile(rb"GET /config\?([A-Za-z0-9._=&-]+) HTTP/1\.1")


class RequestHeadCache(LruCache[CachedRequest]):
    """Cached requests by the digest of the whole request head, by that of its relevant lines, and by that of its parts.

    It has a memory limit of its own, so that unique heads do not evict configs. It accepts a small part of RFC 9112.
    The server's parser reads other heads.

    The name of an entry is a digest for a whole head, and a pair for lines or parts. So bytes that no check has seen
    are compared only with whole heads that have passed the checks.
    """

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._seen_once = bytearray(SEEN_SLOTS)
        # Whether a header is relevant, by its name as the client spells it.
        self._relevance: dict[bytes, bool] = {}

    def find(self, head: bytes) -> CachedRequest | None:
        """Return the cached request of a complete request head, or None if it is not a plain read."""
        digest = sha256(head).digest()
        # Inlines `_find_by_name`, which saves a call on the fast path.
        cached = self._entries.get(digest)
        if cached is not None:
            if not cached.count:
                self._entries.move_to_end(digest)
            return cached
        lines = self._select_lines(head)
        if lines is None:
            return None
        cached = self._find_by_lines(lines)
        if cached is not None:
            self._cache_if_repeated(digest, cached)
        return cached

    def find_parsed(self, query: bytes, headers: Headers) -> CachedRequest | None:
        """Return the cached request of a `GET /config` that the server has parsed. Header names are in lower case."""
        if len(headers) > MAX_READ_HEADERS:
            return None
        parts = [query]
        for name, value in headers:
            if len(value) > MAX_VALUE_BYTES:
                return None
            if name in RELEVANT_HEADERS:
                parts += (name, value)
        # With their number, parts that contain NUL have the name of no parts without it.
        entry_name = ("parts", len(parts), sha256(b"\0".join(parts)).digest())
        return self._find_by_name(entry_name) or self._parse(entry_name, query, headers)

    def _find_by_name(self, name: Hashable) -> CachedRequest | None:
        cached = self._entries.get(name)
        # Only the first read after the reader added up the counts marks the entry as used: precise enough, and cheap.
        if cached is not None and not cached.count:
            self._entries.move_to_end(name)
        return cached

    def _find_by_lines(self, lines: list[bytes]) -> CachedRequest | None:
        name = ("lines", sha256(b"\n".join(lines)).digest())
        cached = self._find_by_name(name)
        if cached is not None:
            return cached
        request_line = _REQUEST_LINE.fullmatch(lines[0])
        headers = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines[1:])]
        return self._parse(name, request_line[1], headers) if request_line else None

    def _parse(self, name: Hashable, query: bytes, headers: Headers) -> CachedRequest | None:
        request = parse_plain_read(query, headers)
        if request is None:
            return None
        cached = CachedRequest(request)
        self.put(name, cached)
        return cached

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
            is_relevant = self._relevance.get(name)
            if is_relevant is None:
                if not _NAME.fullmatch(name):
                    return None
                is_relevant = name.lower() in RELEVANT_HEADERS
                if len(self._relevance) < MAX_KNOWN_NAMES:
                    self._relevance[name] = is_relevant
            if is_relevant:
                selected.append(line)
        return selected

    def _cache_if_repeated(self, digest: bytes, cached: CachedRequest) -> None:
        """Cache the whole head if it was seen before.

        A head leaves one byte of its digest in a table, in the slot that two other bytes choose.
        """
        slot, mark = digest[0] << 8 | digest[1], digest[2] or 1
        if self._seen_once[slot] == mark:
            self.put(digest, cached)
        else:
            self._seen_once[slot] = mark
