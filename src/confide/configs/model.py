"""Configs, their versions, and the conditions under which they are read and saved."""

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
    """What a version of a config is: a saved configuration, or the tombstone of a retired one."""

    SAVED = "saved"
    DELETED = "retired"  # the stored and public word


class Outcome(enum.StrEnum):
    """What an act on a config came to."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "retired"  # the stored and public word


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version as the store holds it: sealed, or without a body if it is a tombstone."""

    key: Key
    version: int
    kind: Kind
    body: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class DecryptedConfig:
    """The current version of a config with its configuration as bytes of JSON, as it is shown to somebody."""

    key: Key
    version: int
    configuration: bytes = field(repr=False)
    is_masked: bool = False
    # The version of its integration type, where that has a schema.
    type_version: int | None = None
    is_bare: bool = False

    @property
    def tag(self) -> str:
        of_type = "" if self.type_version is None else f".{self.type_version}"
        return f'"{self.version}{of_type}{"m" if self.is_masked else ""}{"d" if self.is_bare else ""}"'


@dataclass(frozen=True, slots=True)
class ConfigSummary:
    """What a list tells of a config: never its body."""

    key: Key
    version: int
    saved_at: int
    # By whatever token; None if nobody has.
    last_read_at: int | None = None


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """What history tells of one version: never its body."""

    version: int
    position: Position
    kind: Kind
    # The login of whoever saved it, if that user is still there.
    saved_by: str | None
    saved_at: int
    note: str | None
    # What it held was erased: by retention, or with the key of its tenant.
    is_pruned: bool


@dataclass(frozen=True, slots=True)
class ConfigDraft:
    """What a caller wants to be saved: merged into what is there, or put in its place."""

    key: Key
    configuration: Any = field(repr=False)
    how: Literal["merge", "replace"]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a caller wants to be brought back: an older version, appended as a new one."""

    key: Key
    version: int
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a caller wants to end: it then reads as missing and keeps its history."""

    key: Key
    note: str | None = None


Act = ConfigDraft | Rollback | Deletion


@dataclass(frozen=True, slots=True)
class SavedVersion:
    """What a save, replacement or retirement came to."""

    key: Key
    version: int
    outcome: Outcome
    is_replayed: bool = False
    type_version: int | None = None
    # What breaks the schema of its type and did not refuse the save.
    warnings: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True)
class SavePreview:
    """What a save would come to: nothing of it was stored."""

    diff: Json = field(repr=False)
    outcome: Outcome
    version: int
    warnings: tuple[Violation, ...] = ()


def note(value: object) -> str | None:
    """Read the note of a save: a line of text, or none; raises `InvalidNote`."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_NOTE_CHARACTERS or not value.isprintable():
        raise InvalidNote
    return value or None


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The idempotency record of a request: under which name it came, and what it came to."""

    user_id: int
    route: str
    name: str
    mac: bytes
    version: int = 0
    outcome: Outcome = Outcome.UNCHANGED


class Superseded(Exception):
    """The save lost a race: the config, its idempotency record or its data key changed since it was read."""


class IdempotencyKeyTaken(Superseded):
    """Another request with the same Idempotency-Key was stored first; nothing of this one was."""


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to be appended; without a body it is a tombstone."""

    key: Key
    version: int
    kind: Kind
    key_id: bytes | None
    body: bytes | None = field(repr=False)
    saved_by: int
    saved_at: int
    note: str | None = None


class VersionWithDataKey(NamedTuple):
    """The current version of a config with its tenant's active key, if that came along: most likely it opens it."""

    current: StoredVersion | None
    key: WrappedKey | None


class EncryptedConfig(NamedTuple):
    """A current config of a list with what it holds, sealed, and its tenant's active key."""

    saved_at: int
    current: StoredVersion
    key: WrappedKey | None


class ConfigFilter(NamedTuple):
    """Which configs of a list are wanted, beside their keys; in microseconds since 1970, None is any."""

    changed_since: int | None = None
    # Nobody has read it since, and it was not saved since either.
    unread_since: int | None = None


ANY_CONFIG = ConfigFilter()


class DestroyedTenant(NamedTuple):
    """What destroying a tenant came to."""

    retired: int
    key_ids: list[bytes]
