"""The plain `GET /config`: what it is and what it asks for, decided from raw bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from confide import preconditions
from confide.caching.memory import MemoryEntry
from confide.errors import ServiceError
from confide.identity import token_format
from confide.names import Key
from confide.web.errors import MalformedRequest

if TYPE_CHECKING:
    from confide.identity.authenticator import AuthenticatedToken

PATH = b"/config"
# A plain request has few headers and short ones; what has more is for the application to judge.
MAX_READ_HEADERS = 30
MAX_VALUE_BYTES = 1_000

_NAME = rb"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?)"
_QUERY = re.compile(rb"tenant=%b&integration_type=%b|integration_type=%b&tenant=%b" % (_NAME, _NAME, _NAME, _NAME))
_BEARER = re.compile(rb"[Bb]earer (cfd_[A-Za-z0-9_-]{51})")
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_FROM_THE_STORE = frozenset({"no-cache", "no-store", "max-age=0"})
# With these a request is not plain: it has a body, a condition, or a connection that does not just go on.
_NOT_PLAIN = frozenset(
    {b"content-length", b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"if-match"}
)
# The headers that a plain read looks at.
READ = _NOT_PLAIN | {
    b"host",
    b"authorization",
    b"if-none-match",
    b"connection",
    b"cache-control",
    b"config-min-version",
}


def plain_read(query: bytes, headers: Sequence[tuple[bytes, bytes]]) -> ReadRequest | None:
    """Read a `GET /config`, its header names in lower case; None if it is not a plain one."""
    found = _QUERY.fullmatch(query)
    asked = _read_once(headers)
    if found is None or asked is None or not asked.get(b"host"):
        return None
    given = _BEARER.fullmatch(asked.get(b"authorization", b""))
    token_hash = token_format.token_hash(given[1].decode()) if given else None
    if token_hash is None or asked.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    try:
        known = _text(asked, b"if-none-match")
        if known is not None:
            preconditions.parse_tags(known)
        floor = floor_of(_text(asked, b"cache-control"), _text(asked, b"config-min-version"))
    except ServiceError:
        return None
    tenant, type_, other_type, other_tenant = found.groups()
    key = Key((tenant or other_tenant).decode(), (type_ or other_type).decode())
    return ReadRequest(token_hash, key, known=known, floor=floor)


def _read_once(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """The headers that matter here; None if one of them is there twice, or if any is not as in a plain request."""
    asked: dict[bytes, bytes] = {}
    for name, value in headers:
        if len(value) > MAX_VALUE_BYTES or name in asked:
            return None
        if name in READ:
            asked[name] = value
    return asked if len(headers) <= MAX_READ_HEADERS and _NOT_PLAIN.isdisjoint(asked) else None


def _text(asked: dict[bytes, bytes], name: bytes) -> str | None:
    value = asked.get(name)
    return None if value is None else value.decode("latin-1")


def floor_of(cache_control: str | None, min_version: str | None) -> int:
    """The version that an answer must have at least; more than any where the store itself shall be asked."""
    if cache_control is not None:
        directives = {part.strip().lower() for part in cache_control.split(",")}
        if directives & _FROM_THE_STORE:
            return FROM_THE_STORE
    if min_version is None:
        return 0
    if not _VERSION.fullmatch(min_version):
        raise MalformedRequest("Config-Min-Version is a version: a number from 1 on.")
    return int(min_version)


# What is wanted with its names, numbers and the digest that it is known by.
WANTED_BYTES = 650


class ReadRequest(MemoryEntry):
    """What somebody wants to read, perhaps again and again: it keeps hold of what answered it the last time.

    The answer is good while neither it nor the token is over, until the next second begins, under the lease.
    """

    __slots__ = (
        "answer",
        "checked",
        "floor",
        "key",
        "known",
        "length",
        "not_modified",
        "reads",
        "second",
        "token_hash",
        "token_id",
    )

    def __init__(self, token_hash: bytes, key: Key, *, known: str | None = None, floor: int = 0) -> None:
        super().__init__(WANTED_BYTES)
        self.token_hash = token_hash
        # Known once the token was looked up.
        self.token_id = 0
        self.key = key
        # The tags that the caller has, and the version that it has seen.
        self.known = known
        self.floor = floor
        # Reads since they were last added up, and how many of them brought nothing new.
        self.reads = 0
        self.not_modified = 0
        self.length = 0
        self.answer: Any = None
        self.checked: AuthenticatedToken | None = None
        self.second: object = None


# A floor that no version reaches: the caller wants what the store says now.
FROM_THE_STORE = 2**63
