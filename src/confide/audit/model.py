"""One entry of the audit: who did what to what, when, from where, with which result."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confide.changes.model import Position
from confide.identity.model import Scope
from confide.names import Key

_ENCODER = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry. It has no field that could hold a value, a password or a token.

    What it is about is a config (key and version) or, in words, a `subject`: `user ada`, `token 7`.
    """

    at: int
    action: str
    outcome: str
    actor: int | None = None
    token_id: int | None = None
    address: str | None = None
    request_id: str | None = None
    key: Key | None = None
    version: int | None = None
    subject: str | None = None
    digest: bytes | None = field(default=None, repr=False)

    def authenticated_bytes(self) -> bytes:
        """What the entry's MAC covers: every field, in one form.

        The row that it explains is found by key and version, or by subject; its number is given later.
        """
        head = (self.at, self.action, self.outcome, self.actor, self.token_id, self.address, self.request_id)
        return authenticated_bytes(head, self.key, self.version, self.subject, self.digest)


def authenticated_bytes(
    head: tuple[Any, ...], key: tuple[str, str] | None, version: int | None, subject: str | None, digest: bytes | None
) -> bytes:
    """The bytes of an entry: a JSON list of its fields in their order; the first seven are the head."""
    parts = [*head, key, version, subject, digest.hex() if digest else None]
    return _ENCODER.encode(parts).encode()


class AuditFilter(NamedTuple):
    """Which entries are wanted; None is any. `since` and `until` are microseconds, the second exclusive."""

    scope: Scope | None = None
    actor: int | None = None
    action: str | None = None
    since: int | None = None
    until: int | None = None


class ListedEntry(NamedTuple):
    """One entry of the audit as it is shown: with its number, the login of who acted, and the change it explains."""

    number: int
    entry: AuditEntry
    login: str | None
    position: Position | None
