"""Audit entries: actor, action, object, time, origin and outcome."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confide.changes.model import Position
from confide.identity.model import Scope
from confide.names import ConfigKey

# The action and the outcome of the entry of an epoch that began because commits were lost.
BEGIN_EPOCH, COMMITS_LOST = "begin epoch", "commits lost"
# An entry names this many missing changes.
MAX_NAMED_POSITIONS = 20
_EPOCH_RECORD = re.compile(r"epoch [0-9a-f]{16} after [0-9a-f]{16}; signed ([0-9]{1,19}); ")
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

    # Not `dataclasses.replace`, which is several times slower. Every save numbers its entry.
    def with_digest(self, digest: bytes) -> AuditEntry:
        return AuditEntry(
            self.at,
            self.action,
            self.outcome,
            self.actor,
            self.token_id,
            self.address,
            self.request_id,
            self.key,
            self.version,
            self.subject,
            digest,
        )

    def encode(self) -> bytes:
        """Encode every field for the MAC. The number of the entry is assigned later."""
        head = (self.at, self.action, self.outcome, self.actor, self.token_id, self.address, self.request_id)
        return encode_entry(head, self.key, self.version, self.subject, self.digest)


# The name of the rows of sessions in audit entries. They are rows of the table `tokens`.
SESSIONS = "sessions"


class RowState(NamedTuple):
    """A signed row after a change: its table or `SESSIONS`, primary key and counter.

    `until` is the time until which the row of a token stays, in microseconds since 1970. None for a row that stays.
    """

    table: str
    key: str
    counter: int
    until: int | None = None


class SignedEntry(NamedTuple):
    """An entry with its MAC under the audit key of the database, ready to be stored."""

    entry: AuditEntry
    mac: bytes
    # The number of the entry in its process, after those that the entry names as given up.
    numbers: tuple[int, ...] = ()


class EntryDraft:
    """An entry to store with a change. The transaction signs it, when it knows the rows that the change left behind.

    `AuditRecorder.sign` makes one.
    """

    __slots__ = ("_give_up", "_sign", "_signed", "entry")

    def __init__(
        self,
        entry: AuditEntry,
        sign: Callable[[AuditEntry, Sequence[RowState]], SignedEntry],
        give_up: Callable[[SignedEntry], None] | None = None,
    ) -> None:
        self.entry = entry
        self._sign = sign
        self._give_up = give_up
        self._signed: SignedEntry | None = None

    def sign(self, rows: Sequence[RowState] = ()) -> SignedEntry:
        """Number and sign the entry, once in a transaction."""
        self._signed = self._sign(self.entry, rows)
        return self._signed

    def give_up(self) -> None:
        """Record that the entry was not stored, or perhaps not. Do nothing if it was not signed."""
        signed, self._signed = self._signed, None
        if signed is not None and self._give_up is not None:
            self._give_up(signed)


def encode_entry(
    head: tuple[Any, ...], key: tuple[str, str] | None, version: int | None, subject: str | None, digest: bytes | None
) -> bytes:
    """Encode an entry as a JSON array of its fields in order. `head` holds the first seven."""
    parts = [*head, key, version, subject, digest.hex() if digest else None]
    return _ENCODER.encode(parts).encode()


class EpochRecord(NamedTuple):
    """The subject of the audit entry of an epoch that began because commits were lost."""

    epoch: str
    previous_epoch: str
    # The number of the last entry that a checkpoint covers which the database still has.
    signed_number: int
    # The position of the latest change that the database still has.
    last_position: Position | None
    missing: tuple[Position, ...]
    # The number of a checkpoint that the database does not have.
    missing_checkpoint: int | None

    def format(self) -> str:
        """Format the record as one line. It names the first few missing changes and the number of all."""
        last = "none" if self.last_position is None else _format_position(self.last_position)
        text = f"epoch {self.epoch} after {self.previous_epoch}; signed {self.signed_number}; last {last}"
        text += f"; missing changes {len(self.missing)}"
        if self.missing:
            text += ": " + " ".join(map(_format_position, self.missing[:MAX_NAMED_POSITIONS]))
        return text if self.missing_checkpoint is None else f"{text}; missing checkpoint {self.missing_checkpoint}"


def parse_signed_number(subject: str) -> int | None:
    """Return the `signed_number` of an `EpochRecord`, or None for any other subject."""
    parts = _EPOCH_RECORD.match(subject)
    return None if parts is None else int(parts[1])


def _format_position(position: Position) -> str:
    return f"{position.xid}.{position.id}"


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
