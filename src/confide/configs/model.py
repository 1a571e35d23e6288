"""Values of configs: stored versions, requests to write them, and their results."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from confide.changes.model import Position
from confide.configs.errors import InvalidNote
from confide.crypto.model import WrappedKey
from confide.epoch import Epoch
from confide.errors import Violation
from confide.names import ConfigKey
from confide.strict_json import Json

MAX_NOTE_CHARACTERS = 500


class Kind(enum.StrEnum):
    """The kind of a version: a saved configuration or a tombstone."""

    SAVED = "saved"
    DELETED = "retired"  # the name in the database and in responses


class Outcome(enum.StrEnum):
    """The outcome of a save, rollback or deletion."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "retired"  # the name in the database and in responses


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version as stored: encrypted. A tombstone has no body."""

    key: ConfigKey
    version: int
    kind: Kind
    body: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConfigSummary:
    """A config in a list, without its body."""

    key: ConfigKey
    version: int
    saved_at: int
    # The last read with any token. None if the config was never read.
    last_read_at: int | None = None


class TenantSummary(NamedTuple):
    """A tenant, with the number of its configs that the caller may see."""

    tenant: str
    configs: int


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A version in the history, without its body."""

    version: int
    position: Position
    kind: Kind
    # The login of the user. None if the user was removed.
    saved_by: str | None
    saved_at: int
    note: str | None
    # Retention erased the body, or the data key was destroyed with its tenant.
    is_pruned: bool


@dataclass(frozen=True, slots=True)
class ConfigDraft:
    """A request to save: merge a configuration into the current one, or replace the current one."""

    key: ConfigKey
    configuration: Any = field(repr=False)
    mode: Literal["merge", "replace"]
    note: str | None = None
    # The size of the request with the configuration, if it is known.
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Rollback:
    """A request to append the configuration of an older version as a new version."""

    key: ConfigKey
    version: int
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """A request to append a tombstone. The config then reads as missing and keeps its history."""

    key: ConfigKey
    note: str | None = None


WriteRequest = ConfigDraft | Rollback | Deletion


@dataclass(frozen=True, slots=True)
class SavedVersion:
    """The result of a save, rollback or deletion."""

    key: ConfigKey
    version: int
    outcome: Outcome
    # The epoch of its entity tag.
    epoch: Epoch
    # The outcome of the first request with the same idempotency key.
    is_replayed: bool = False
    type_version: int | None = None
    # Violations of the schema that did not reject the save.
    warnings: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True)
class SavePreview:
    """The result that a save or rollback would have."""

    diff: Json = field(repr=False)
    outcome: Outcome
    version: int
    warnings: tuple[Violation, ...] = ()


def parse_note(value: object) -> str | None:
    """Parse the note of a write, which is one line of text. Raises `InvalidNote`."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_NOTE_CHARACTERS or not value.isprintable():
        raise InvalidNote
    return value or None


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The idempotency key of a request, and the outcome that a retry gets."""

    user_id: int
    route: str
    idempotency_key: str
    # The MAC of the content of the request.
    content_mac: bytes
    version: int = 0
    outcome: Outcome = Outcome.UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion(StoredVersion):
    """A version to append, with the rest of its row."""

    data_key_id: bytes | None
    saved_by: int
    saved_at: int
    note: str | None = None


class VersionWithDataKey(NamedTuple):
    """The current version of a config, and the active data key of its tenant, which usually decrypts it."""

    current: StoredVersion | None
    data_key: WrappedKey | None


class KnownVersion(NamedTuple):
    """The newest version of a config that a process knows, from any source and from the change feed alone.

    A version that only another read has returned can be gone after a failover that loses no change of the feed.
    """

    version: int
    in_feed: int


UNKNOWN_VERSION = KnownVersion(0, 0)


class EncryptedConfig(NamedTuple):
    """A current config with its encrypted body and the active data key of its tenant."""

    saved_at: int
    current: StoredVersion
    data_key: WrappedKey | None


class ConfigFilter(NamedTuple):
    """Filters of a list. None matches any config. Times are microseconds since 1970."""

    changed_since: int | None = None
    # Neither read nor saved since that time.
    unread_since: int | None = None


ANY_CONFIG = ConfigFilter()


class DestroyedTenant(NamedTuple):
    """The result of destroying a tenant."""

    deleted_configs: int
    data_key_ids: list[bytes]
