"""Integration types with their compiled schemas."""

from __future__ import annotations

from typing import Any, NamedTuple

from confide.errors import Violation
from confide.integration_types.masking import PLACE_WITHOUT_SCHEMA, SecretPlace, mask
from confide.integration_types.model import DEFAULT_KEPT_VERSIONS, Mode, TypeVersion
from confide.integration_types.schema import Schema, SchemaViolation
from confide.reads.model import Rendering
from confide.slices import pause_if_due
from confide.strict_json import Json, is_equal, read_stored, write

_TOO_MANY_TO_COMPARE = (
    "The configuration has too many violations to tell old ones from new ones. Correct some of them in this save."
)
UNREADABLE = Violation("", "integrity-error", "The stored config cannot be decrypted.")


class SaveCheck(NamedTuple):
    """The violations that reject a save, and those that are only warnings."""

    rejected: list[SchemaViolation]
    warned: list[SchemaViolation]


class IntegrationType:
    """An active integration type with its compiled schema. Without a schema it accepts every configuration."""

    __slots__ = ("keep", "mode", "schema", "version")

    def __init__(
        self, version: int, schema: Schema | None, *, mode: Mode = Mode.WARN, keep: int = DEFAULT_KEPT_VERSIONS
    ) -> None:
        self.version = version
        self.schema = schema
        self.mode = mode
        self.keep = keep

    @property
    def tag_version(self) -> int | None:
        """The version for entity tags. None without a schema."""
        return None if self.schema is None else self.version

    @property
    def has_defaults(self) -> bool:
        return self.schema is not None and self.schema.has_defaults

    @property
    def place(self) -> SecretPlace:
        """The root of the places of a configuration, which decide where secrets are."""
        return PLACE_WITHOUT_SCHEMA if self.schema is None else self.schema.place

    def mask(self, configuration: Json) -> Json:
        masked: Json = mask(configuration, self.place)
        return masked

    def render(self, configuration: bytes, rendering: Rendering) -> bytes:
        """Fill in the defaults and mask secrets, as the rendering requires."""
        must_fill = self.has_defaults and rendering.has_defaults
        if not must_fill and not rendering.is_masked:
            return configuration
        document = read_stored(configuration)
        if must_fill:
            document = self.fill_defaults(document)
        return write(self.mask(document) if rendering.is_masked else document)

    def fill_defaults(self, configuration: Json) -> Json:
        return configuration if self.schema is None else self.schema.fill_defaults(configuration)

    def list_violations(self, plaintext: bytes | None, *, is_masked: bool = False) -> tuple[Violation, ...]:
        """List up to a thousand violations. The plaintext of a configuration that cannot be decrypted is None."""
        if plaintext is None:
            return (UNREADABLE,)
        if self.schema is None:
            return ()
        configuration = read_stored(plaintext)
        violations = self.schema.find_violations(configuration)
        return tuple(
            (one.hide_secrets(self.place, configuration) if is_masked else one).to_violation() for one in violations
        )

    def check_save(self, before: Json | None, after: Json) -> SaveCheck:
        """Check a save. In mode `enforce`, a violation that the save does not touch is only a warning.

        If not all violations can be listed, a save that leaves the listed ones as they are is rejected as well.
        """
        if self.schema is None:
            return SaveCheck([], [])
        found = self.schema.check(after)
        if self.mode is Mode.WARN or not found.violations:
            return SaveCheck([], found.violations)
        pause_if_due()
        before_save = [] if before is None else self.schema.find_violations(before)
        old = {(one.place, one.rule_at) for one in before_save}
        check = SaveCheck([], [])
        for violation in found.violations:
            is_old = (violation.place, violation.rule_at) in old and _is_same_at(violation.place, before, after)
            (check.warned if is_old else check.rejected).append(violation)
        if not check.rejected and not found.is_complete:
            check.rejected.append(SchemaViolation((), "schema", "", _TOO_MANY_TO_COMPARE))
        return check


UNTYPED = IntegrationType(0, None)


def compile_type(found: TypeVersion | None) -> IntegrationType:
    """Compile the active version. A removed type has no schema, but keeps its version."""
    if found is None:
        return UNTYPED
    schema = None if found.schema is None else Schema(found.schema)
    return IntegrationType(found.version, schema, mode=found.mode, keep=found.keep)


def _is_same_at(place: tuple[str | int, ...], before: Any, after: Any) -> bool:
    """Return whether a place has the same value in both configurations, or is missing in both.

    The elements of a list can move, so for a place in a list the whole element must be the same.
    """
    length = max((number for number, part in enumerate(place, 1) if isinstance(part, int)), default=len(place))
    return all(is_equal(_get_value(one, before), _get_value(one, after)) for one in (place[:length], place))


def _get_value(place: tuple[str | int, ...], value: Any) -> Any:
    for part in place:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return ...
    return value
