"""Integration types: kinds of external systems, each with a schema once somebody registered one."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from confide.errors import InvalidBody
from confide.integration_types.masking import ANYWHERE, Place
from confide.integration_types.schema import Schema, SchemaViolation
from confide.strict_json import Json, are_equal

KEEP = 100
MAX_KEPT = 100_000


class Mode(enum.StrEnum):
    """What a fault means for a save: it is listed in the answer, or it refuses the save that brings it."""

    WARN = "warn"
    ENFORCE = "enforce"


class TypeKind(enum.StrEnum):
    """What a version of a type is."""

    SAVED = "saved"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class TypeDraft:
    """What a caller wants a type to be."""

    name: str
    schema: Json | None = field(repr=False)
    mode: Mode = Mode.WARN
    keep: int = KEEP
    note: str | None = None


@dataclass(frozen=True, slots=True)
class TypeVersion:
    """One saved state of a type; the highest one is in force."""

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
        mine, asked = (self.mode, self.keep), (draft.mode, draft.keep)
        return self.kind is TypeKind.SAVED and mine == asked and are_equal(self.schema, draft.schema)


class IntegrationType:
    """A type as it is in force: what its schema says of configurations; without a schema it says nothing."""

    __slots__ = ("keep", "mode", "schema", "version")

    def __init__(self, version: int, schema: Schema | None, *, mode: Mode = Mode.WARN, keep: int = KEEP) -> None:
        self.version = version
        self.schema = schema
        self.mode = mode
        self.keep = keep

    @property
    def tag_part(self) -> int | None:
        """The version that tags name, where the type has a schema."""
        return None if self.schema is None else self.version

    @property
    def has_defaults(self) -> bool:
        return self.schema is not None and self.schema.has_defaults

    @property
    def place(self) -> Place:
        """Where secrets stand in a configuration of this type."""
        return ANYWHERE if self.schema is None else self.schema.place

    def filled(self, configuration: Json) -> Json:
        return configuration if self.schema is None else self.schema.filled(configuration)

    def violations(self, configuration: Json, *, most: int | None = None) -> list[SchemaViolation]:
        return [] if self.schema is None else self.schema.violations(configuration, most=most)

    def judged(self, before: Json | None, after: Json) -> tuple[list[SchemaViolation], list[SchemaViolation]]:
        """What refuses a save, and what it is only warned of: under `enforce` what it neither brings nor touches."""
        violations = self.violations(after)
        if self.mode is Mode.WARN or not violations:
            return [], violations
        old = (
            set() if before is None else {(violation.place, violation.rule_at) for violation in self.violations(before)}
        )
        refusing: list[SchemaViolation] = []
        warned: list[SchemaViolation] = []
        for violation in violations:
            is_old = (violation.place, violation.rule_at) in old and _is_same_at(violation.place, before, after)
            (warned if is_old else refusing).append(violation)
        return refusing, warned


UNTYPED = IntegrationType(0, None)


def in_force(found: TypeVersion | None) -> IntegrationType:
    """Compile what is in force; a removed type is as none, but its number goes on."""
    if found is None:
        return UNTYPED
    schema = None if found.schema is None else Schema(found.schema)
    return IntegrationType(found.version, schema, mode=found.mode, keep=found.keep)


def keep(value: Any) -> int:
    """Read how many versions of each config are kept."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_KEPT:
        raise InvalidBody(f"Invalid `keep`. Use a number from 1 to {MAX_KEPT:,}.")
    return value


def _is_same_at(place: tuple[str | int, ...], before: Any, after: Any) -> bool:
    """Whether the same stands there, or nothing does, in both; of a list, its whole element."""
    inside = max((number for number, part in enumerate(place, 1) if isinstance(part, int)), default=len(place))
    return all(are_equal(_at(one, before), _at(one, after)) for one in (place[:inside], place))


def _at(place: tuple[str | int, ...], value: Any) -> Any:
    for part in place:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return ...
    return value
