"""One entry of the audit: who did what to what, when, from where, with which result."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from confide.domain.names import Key

_ENCODER = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from, as far as the audit and the limit on logins must know."""

    address: str | None
    request_id: str


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
