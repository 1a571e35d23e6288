"""Values of integration types: kinds of external systems, each with an optional schema."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confide.configs.model import Outcome
from confide.epoch import Epoch
from confide.errors import InvalidBody, Violation
from confide.strict_json import Json, is_equal

DEFAULT_KEPT_VERSIONS = 100
MAX_KEPT_VERSIONS = 100_000


class Mode(enum.StrEnum):
    """The effect of a violation: a warning in the response, or the rejection of a save that introduces it."""

    WARN = "warn"
    ENFORCE = "enforce"


class TypeKind(enum.StrEnum):
    """The kind of a version of a type: saved settings, or a tombstone."""

    SAVED = "saved"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class TypeDraft:
    """A request to save an integration type. `keep` is the number of versions that each config keeps."""

    name: str
    schema: Json | None = field(repr=False)
    mode: Mode = Mode.WARN
    keep: int = DEFAULT_KEPT_VERSIONS
    note: str | None = None


@dataclass(frozen=True, slots=True)
class TypeVersion:
    """One version of an integration type. The highest one is active."""

    name: str
    version: int
    kind: TypeKind
    schema: Json | None = field(repr=False)
    mode: Mode
    keep: int
    saved_by: int
    saved_at: int
    note: str | None = None

    def has_same_settings(self, draft: TypeDraft) -> bool:
        settings, drafted = (self.mode, self.keep), (draft.mode, draft.keep)
        return self.kind is TypeKind.SAVED and settings == drafted and is_equal(self.schema, draft.schema)


class SavedType(NamedTuple):
    """The result of saving an integration type."""

    outcome: Outcome
    version: int
    # The epoch of its entity tag.
    epoch: Epoch
    # Problems of the schema that do not prevent its registration.
    warnings: tuple[Violation, ...] = ()


def parse_keep(value: Any) -> int:
    """Parse the number of versions to keep of each config. Raises `InvalidBody`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_KEPT_VERSIONS:
        raise InvalidBody(f"Invalid `keep`. Use a number from 1 to {MAX_KEPT_VERSIONS:,}.")
    return value
