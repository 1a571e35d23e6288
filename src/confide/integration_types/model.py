"""Integration types: kinds of external systems, each with an optional schema."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confide.errors import InvalidBody, Violation
from confide.integration_types.masking import ANYWHERE, SecretPlace, mask, require_no_mask
from confide.integration_types.schema import Schema, SchemaViolation
from confide.strict_json import Json, are_equal

# Other features check a document for masks through this module.
__all__ = [
    "UNTYPED",
    "IntegrationType",
    "Mode",
    "TypeDraft",
    "TypeKind",
    "TypeVersion",
    "compile_type",
    "parse_keep",
    "require_no_mask",
]

KEEP = 100
MAX_KEPT = 100_000
MAX_REPORTED = 1_000
UNREADABLE = Violation("", "integrity-error", "The stored config cannot be decrypted.")


class Mode(enum.StrEnum):
    """Whether a violation is a warning in the response or rejects the save that introduces it."""

    WARN = "warn"
    ENFORCE = "enforce"


class TypeKind(enum.StrEnum):
    """Whether a version of a type holds settings or removes the type."""

    SAVED = "saved"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class TypeDraft:
    """The settings that a client sends for a type."""

    name: str
    schema: Json | None = field(repr=False)
    mode: Mode = Mode.WARN
    keep: int = KEEP
    note: str | None = None


@dataclass(frozen=True, slots=True)
class TypeVersion:
    """One saved version of a type; the highest one is active."""

    name: str
    version: int
    kind: TypeKind
    schema: Json | None = field(repr=False)
    mode: Mode
    keep: int
    saved_by: int
    saved_at: int
    note: str | None = None

    def is_same(self, draft: TypeDraft) -> bool:
        settings, drafted = (self.mode, self.keep), (draft.mode, draft.keep)
        return self.kind is TypeKind.SAVED and settings == drafted and are_equal(self.schema, draft.schema)


class SaveCheck(NamedTuple):
    """The violations that reject a save, and those that are only warnings."""

    rejected: list[SchemaViolation]
    warned: list[SchemaViolation]


class IntegrationType:
    """An active type with its compiled schema; without a schema it accepts every configuration."""

    __slots__ = ("keep", "mode", "schema", "version")

    def __init__(self, version: int, schema: Schema | None, *, mode: Mode = Mode.WARN, keep: int = KEEP) -> None:
        self.version = version
        self.schema = schema
        self.mode = mode
        self.keep = keep

    @property
    def tag_part(self) -> int | None:
        """The version in entity tags; None without a schema."""
        return None if self.schema is None else self.version

    @property
    def has_defaults(self) -> bool:
        return self.schema is not None and self.schema.has_defaults

    @property
    def place(self) -> SecretPlace:
        """The root of the places of a configuration, which says where its secrets are."""
        return ANYWHERE if self.schema is None else self.schema.place

    def mask(self, configuration: Json) -> Json:
        masked: Json = mask(configuration, self.place)
        return masked

    def fill_defaults(self, configuration: Json) -> Json:
        return configuration if self.schema is None else self.schema.fill_defaults(configuration)

    def violations(self, configuration: Json, *, most: int | None = None) -> list[SchemaViolation]:
        return [] if self.schema is None else self.schema.violations(configuration, most=most)

    def report(self, configuration: Json | None, *, hides_secrets: bool = False) -> tuple[Violation, ...]:
        """List up to a thousand violations; empty if the configuration conforms. None is one that is unreadable."""
        if configuration is None:
            return (UNREADABLE,)
        found = self.violations(configuration, most=MAX_REPORTED)
        return tuple((one.hide_secrets(self.place) if hides_secrets else one).as_violation() for one in found)

    def check_save(self, before: Json | None, after: Json) -> SaveCheck:
        """Check a save; under `enforce`, older violations that the save does not touch are only warnings."""
        violations = self.violations(after)
        if self.mode is Mode.WARN or not violations:
            return SaveCheck([], violations)
        old = (
            set() if before is None else {(violation.place, violation.rule_at) for violation in self.violations(before)}
        )
        check = SaveCheck([], [])
        for violation in violations:
            is_old = (violation.place, violation.rule_at) in old and _is_same_at(violation.place, before, after)
            (check.warned if is_old else check.rejected).append(violation)
        return check


UNTYPED = IntegrationType(0, None)


def compile_type(found: TypeVersion | None) -> IntegrationType:
    """Compile the active version; a removed type has no schema but keeps its version."""
    if found is None:
        return UNTYPED
    schema = None if found.schema is None else Schema(found.schema)
    return IntegrationType(found.version, schema, mode=found.mode, keep=found.keep)


def parse_keep(value: Any) -> int:
    """Parse how many versions of each config are kept; raises `InvalidBody`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_KEPT:
        raise InvalidBody(f"Invalid `keep`. Use a number from 1 to {MAX_KEPT:,}.")
    return value


def _is_same_at(place: tuple[str | int, ...], before: Any, after: Any) -> bool:
    """Return whether a place has the same value in both, or none; in a list, the whole element counts."""
    inside = max((number for number, part in enumerate(place, 1) if isinstance(part, int)), default=len(place))
    return all(are_equal(_get(one, before), _get(one, after)) for one in (place[:inside], place))


def _get(place: tuple[str | int, ...], value: Any) -> Any:
    for part in place:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return ...
    return value
