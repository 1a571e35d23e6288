"""Audit entries: actor, action, object, time, origin and outcome."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confide.changes.model import Position
from confide.identity.model import Scope
from confide.names import ConfigKey

_ENCODER = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One audit entry. No field can hold a value of a configuration, a password or a token.

    Its object is a config (key and version) or a `subject` such as `user ada` or `token 7`.
    """

    at: int
    action: str
    outcome: str
    actor: int | None = None
    token_id: int | None = None
    address: str | None = None
    request_id: str | None = None
    key: ConfigKey | None = None
    version: int | None = None
    subject: str | None = None
    digest: bytes | None = field(default=None, repr=False)

    def encode(self) -> bytes:
        """Encode every field for the MAC. The number of the entry is assigned later."""
        head = (self.at, self.action, self.outcome, self.actor, self.token_id, self.address, self.request_id)
        return encode_entry(head, self.key, self.version, self.subject, self.digest)


class SignedEntry(NamedTuple):
    """An entry with its MAC under the audit key of the database. Only `AuditRecorder.sign` makes one."""

    entry: AuditEntry
    mac: bytes


def encode_entry(
    head: tuple[Any, ...], key: tuple[str, str] | None, version: int | None, subject: str | None, digest: bytes | None
) -> bytes:
    """Encode an entry as a JSON array of its fields in order. `head` holds the first seven."""
    parts = [*head, key, version, subject, digest.hex() if digest else None]
    return _ENCODER.encode(parts).encode()


class AuditFilter(NamedTuple):
    """A selection of entries. None matches any; `until` is exclusive. Times are microseconds since 1970."""

    scope: Scope | None = None
    actor: int | None = None
    action: str | None = None
    since: int | None = None
    until: int | None = None


class ListedEntry(NamedTuple):
    """One audit entry with its number, the login of its actor, and the position of its change."""

    number: int
    entry: AuditEntry
    login: str | None
    position: Position | None
