"""Parse a plain `GET /config`: a read without a body, an `If-Match` header or unusual syntax.

The router handles all other reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from confide import preconditions
from confide.errors import ServiceError
from confide.identity.model import Credential, parse_credential
from confide.names import ConfigKey
from confide.web.errors import MalformedRequest

PATH = b"/config"
# A request with more or longer headers is not plain.
MAX_READ_HEADERS = 30
MAX_VALUE_BYTES = 1_000

_NAME = rb"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?)"
_QUERY = re.compile(rb"tenant=%b&integration_type=%b|integration_type=%b&tenant=%b" % (_NAME, _NAME, _NAME, _NAME))
_BEARER = re.compile(rb"[Bb]earer (cfd_[A-Za-z0-9_-]{51})")
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_REVALIDATE = frozenset({"no-cache", "no-store", "max-age=0"})
# A request with one of these headers is not plain: it has a body, a precondition or an unusual connection.
_NOT_PLAIN = frozenset(
    {b"content-length", b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"if-match"}
)
# Headers that affect the response to a plain read.
RELEVANT_HEADERS = _NOT_PLAIN | {
    b"host",
    b"authorization",
    b"if-none-match",
    b"connection",
    b"cache-control",
    b"config-min-version",
}
# A minimum version that no version reaches, so that the response must come from the database.
FORCE_REVALIDATION = 2**63


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A parsed read of a current config."""

    credential: Credential = field(repr=False)
    key: ConfigKey
    # The value of `If-None-Match`.
    known_tags: str | None = None
    min_version: int = 0


def parse_plain_read(query: bytes, headers: Sequence[tuple[bytes, bytes]]) -> ReadRequest | None:
    """Parse a `GET /config`. Header names are in lower case. Return None if the request is not plain."""
    query_match = _QUERY.fullmatch(query)
    relevant = _select_relevant(headers)
    if query_match is None or relevant is None or not relevant.get(b"host"):
        return None
    bearer = _BEARER.fullmatch(relevant.get(b"authorization", b""))
    credential = parse_credential(bearer[1].decode()) if bearer else None
    if credential is None or relevant.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    try:
        known_tags = _decode_header(relevant, b"if-none-match")
        if known_tags is not None:
            preconditions.parse_tags(known_tags)
        min_version = parse_min_version(
            _decode_header(relevant, b"cache-control"), _decode_header(relevant, b"config-min-version")
        )
    except ServiceError:
        return None
    tenant, type_, other_type, other_tenant = query_match.groups()
    key = ConfigKey((tenant or other_tenant).decode(), (type_ or other_type).decode())
    return ReadRequest(credential, key, known_tags=known_tags, min_version=min_version)


def _select_relevant(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """Return the relevant headers, or None if one is repeated or the request is not plain."""
    relevant: dict[bytes, bytes] = {}
    for name, value in headers:
        if len(value) > MAX_VALUE_BYTES or name in relevant:
            return None
        if name in RELEVANT_HEADERS:
            relevant[name] = value
    return relevant if len(headers) <= MAX_READ_HEADERS and _NOT_PLAIN.isdisjoint(relevant) else None


def _decode_header(relevant: dict[bytes, bytes], name: bytes) -> str | None:
    value = relevant.get(name)
    return None if value is None else value.decode("latin-1")


def parse_min_version(cache_control: str | None, config_min_version: str | None) -> int:
    """Return the minimum version from `Cache-Control` and `Config-Min-Version`, or `FORCE_REVALIDATION`.

    Raises `MalformedRequest` unless the minimum is a number from 1.
    """
    if cache_control is not None:
        directives = {part.strip().lower() for part in cache_control.split(",")}
        if directives & _REVALIDATE:
            return FORCE_REVALIDATION
    if config_min_version is None:
        return 0
    if not _VERSION.fullmatch(config_min_version):
        raise MalformedRequest("Invalid Config-Min-Version. Use a version number from 1.")
    return int(config_min_version)
