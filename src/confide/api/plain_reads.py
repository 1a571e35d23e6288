"""The plain `GET /config`: what it is and what it asks for, decided from raw bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from confide.domain import configs, secrets
from confide.domain.errors import MalformedRequest, Refusal
from confide.domain.names import Key
from confide.service.reading import FROM_THE_STORE
from confide.service.wanted import WantedConfig

PATH = b"/config"
# A plain request has few headers and short ones; what has more is for the application to judge.
MOST_HEADERS = 30
MOST_VALUE_BYTES = 1_000

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


def plain_read(query: bytes, headers: Sequence[tuple[bytes, bytes]]) -> WantedConfig | None:
    """Read a `GET /config`, its header names in lower case; None if it is not a plain one."""
    found = _QUERY.fullmatch(query)
    asked = _read_once(headers)
    if found is None or asked is None or not asked.get(b"host"):
        return None
    given = _BEARER.fullmatch(asked.get(b"authorization", b""))
    token_hash = secrets.token_hash(given[1].decode()) if given else None
    if token_hash is None or asked.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    try:
        known = _text(asked, b"if-none-match")
        if known is not None:
            configs.tags(known)
        floor = floor_of(_text(asked, b"cache-control"), _text(asked, b"config-min-version"))
    except Refusal:
        return None
    tenant, type_, other_type, other_tenant = found.groups()
    key = Key((tenant or other_tenant).decode(), (type_ or other_type).decode())
    return WantedConfig(token_hash, key, known=known, floor=floor)


def _read_once(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """The headers that matter here; None if one of them is there twice, or if any is not as in a plain request."""
    asked: dict[bytes, bytes] = {}
    for name, value in headers:
        if len(value) > MOST_VALUE_BYTES or name in asked:
            return None
        if name in READ:
            asked[name] = value
    return asked if len(headers) <= MOST_HEADERS and _NOT_PLAIN.isdisjoint(asked) else None


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
