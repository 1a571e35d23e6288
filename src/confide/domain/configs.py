"""Configs, their versions, and the conditions under which they are read and saved."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from confide.domain.bodies import Json
from confide.domain.errors import Fault, InvalidNote, PreconditionInvalid, VersionConflict
from confide.domain.names import Key
from confide.domain.positions import Position

MOST_NOTE_CHARACTERS = 500

_TAG_LIST = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e]*"\s*(?:,\s*(?:W/)?"[\x21\x23-\x7e]*"\s*)*')
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
_OUR_TAG = re.compile(r'"([1-9][0-9]{0,18})(?:\.[1-9][0-9]{0,18})?m?d?"')


class Kind(enum.StrEnum):
    """What a version of a config is: a saved configuration, or the tombstone of a retired one."""

    SAVED = "saved"
    RETIRED = "retired"


class Outcome(enum.StrEnum):
    """What an act on a config came to."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version as the store holds it: sealed, or without a body if it is a tombstone."""

    key: Key
    version: int
    kind: Kind
    body: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenedConfig:
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
class ConfigLine:
    """What a list tells of a config: never its body."""

    key: Key
    version: int
    saved_at: int
    # By whatever token; None if nobody has.
    last_read_at: int | None = None


@dataclass(frozen=True, slots=True)
class VersionLine:
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
class Retirement:
    """What a caller wants to end: it then reads as missing and keeps its history."""

    key: Key
    note: str | None = None


Act = ConfigDraft | Rollback | Retirement


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save, replacement or retirement came to."""

    key: Key
    version: int
    outcome: Outcome
    is_replayed: bool = False
    type_version: int | None = None
    # What breaks the schema of its type and did not refuse the save.
    warnings: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a save would come to: nothing of it was stored."""

    diff: Json = field(repr=False)
    outcome: Outcome
    version: int
    warnings: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """`If-Match` and `If-None-Match: *` of one request (RFC 9110, section 13.1)."""

    match: tuple[str, ...] | None = None
    must_be_new: bool = False

    def must_hold(self, version: int | None) -> None:
        """Raise `VersionConflict` unless it holds of the current version; None if missing or retired."""
        if self.must_be_new and version is not None:
            raise VersionConflict(current_version=version)
        if self.match is None or (version is not None and self.match == ("*",)):
            return
        if version is None or version not in {matched_version(tag) for tag in self.match}:
            raise VersionConflict(current_version=version)


def condition(if_match: str | None, if_none_match: str | None) -> Condition:
    """Read the condition of a save; `If-None-Match` may only be `*` there."""
    if if_none_match is not None and if_none_match.strip() != "*":
        raise PreconditionInvalid("On a save, If-None-Match may only be *.")
    match = None if if_match is None else tags(if_match)
    return Condition(match, must_be_new=if_none_match is not None)


def tags(value: str) -> tuple[str, ...]:
    """Read a list of entity tags, or `*`; raise `PreconditionInvalid` if it is neither."""
    if value.strip() == "*":
        return ("*",)
    if not _TAG_LIST.fullmatch(value):
        raise PreconditionInvalid
    return tuple(_TAG.findall(value))


def matched_version(tag: str) -> int | None:
    """The config's version in a tag of ours, compared strongly: a weak or foreign tag matches none."""
    ours = _OUR_TAG.fullmatch(tag)
    return int(ours[1]) if ours else None


def is_known(tag: str, known: str) -> bool:
    """Whether `If-None-Match` names the tag (RFC 9110, 13.1.2: weak comparison)."""
    return any(candidate in ("*", tag) or candidate.removeprefix("W/") == tag for candidate in tags(known))


def note(value: object) -> str | None:
    """Read the note of a save: a line of text, or none; raises `InvalidNote`."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MOST_NOTE_CHARACTERS or not value.isprintable():
        raise InvalidNote
    return value or None
