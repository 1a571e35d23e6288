"""Values of configs, their versions, and requests to save them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from confide.changes.model import Position
from confide.configs.errors import InvalidNote
from confide.crypto.model import WrappedKey
from confide.errors import Violation
from confide.names import Key
from confide.strict_json import Json

MAX_NOTE_CHARACTERS = 500


class Kind(enum.StrEnum):
    """The kind of a version: a saved configuration or a tombstone."""

    SAVED = "saved"
    DELETED = "retired"  # stored and public name


class Outcome(enum.StrEnum):
    """The outcome of a save, rollback or deletion."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "retired"  # stored and public name


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version as stored: encrypted. A tombstone has no body."""

    key: Key
    version: int
    kind: Kind
    body: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class DecryptedConfig:
    """The current version of a config as JSON bytes, masked if the caller may not read secrets."""

    key: Key
    version: int
    configuration: bytes = field(repr=False)
    is_masked: bool = False
    # The version of its integration type, if the type has a schema.
    type_version: int | None = None
    is_without_defaults: bool = False

    @property
    def tag(self) -> str:
        of_type = "" if self.type_version is None else f".{self.type_version}"
        return f'"{self.version}{of_type}{"m" if self.is_masked else ""}{"d" if self.is_without_defaults else ""}"'


@dataclass(frozen=True, slots=True)
class ConfigSummary:
    """A config in a list, without its body."""

    key: Key
    version: int
    saved_at: int
    # With any token; None if it was never read.
    last_read_at: int | None = None


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A version in the history, without its body."""

    version: int
    position: Position
    kind: Kind
    # None if the user was removed.
    saved_by: str | None
    saved_at: int
    note: str | None
    # Retention erased the body, or the data key was destroyed with its tenant.
    is_pruned: bool


@dataclass(frozen=True, slots=True)
class ConfigDraft:
    """A configuration to save: merge it into the current one, or replace that."""

    key: Key
    configuration: Any = field(repr=False)
    how: Literal["merge", "replace"]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Rollback:
    """A rollback: append an older version as a new one."""

    key: Key
    version: int
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deletion: the config then reads as missing and keeps its history."""

    key: Key
    note: str | None = None


Act = ConfigDraft | Rollback | Deletion


@dataclass(frozen=True, slots=True)
class SavedVersion:
    """The result of a save, rollback or deletion."""

    key: Key
    version: int
    outcome: Outcome
    is_replayed: bool = False
    type_version: int | None = None
    # Schema violations that did not reject the save.
    warnings: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True)
class SavePreview:
    """The preview of a save. Nothing was stored."""

    diff: Json = field(repr=False)
    outcome: Outcome
    version: int
    warnings: tuple[Violation, ...] = ()


def parse_note(value: object) -> str | None:
    """Parse the note of a save, one line of text; raises `InvalidNote`."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_NOTE_CHARACTERS or not value.isprintable():
        raise InvalidNote
    return value or None


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The idempotency key of a request and the outcome that a retry gets again."""

    user_id: int
    route: str
    name: str
    mac: bytes
    version: int = 0
    outcome: Outcome = Outcome.UNCHANGED


class Superseded(Exception):
    """The save lost a race: the config, its idempotency record or its data key changed since it was read."""


class IdempotencyKeyTaken(Superseded):
    """Another request with the same Idempotency-Key was stored first; this one stored nothing."""


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to append. A tombstone has no body."""

    key: Key
    version: int
    kind: Kind
    key_id: bytes | None
    body: bytes | None = field(repr=False)
    saved_by: int
    saved_at: int
    note: str | None = None


class VersionWithDataKey(NamedTuple):
    """The current version of a config with the active data key of its tenant, which most likely decrypts it."""

    current: StoredVersion | None
    key: WrappedKey | None


class EncryptedConfig(NamedTuple):
    """A current config with its encrypted body and the active data key of its tenant."""

    saved_at: int
    current: StoredVersion
    key: WrappedKey | None


class ConfigFilter(NamedTuple):
    """Filters of a list besides the key, in microseconds since 1970. None matches any config."""

    changed_since: int | None = None
    # Neither read nor saved since then.
    unread_since: int | None = None


ANY_CONFIG = ConfigFilter()


class DestroyedTenant(NamedTuple):
    """The result of destroying a tenant."""

    retired: int
    key_ids: list[bytes]
