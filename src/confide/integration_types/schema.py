"""Compile and apply the JSON Schema (2020-12) of an integration type: offline and in bounded time."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from confide.errors import Violation
from confide.integration_types.errors import SchemaInvalid
from confide.integration_types.masking import SecretPlace, has_mask, mask
from confide.integration_types.schema_limits import SchemaReader
from confide.integration_types.subschemas import NO_DEFAULT, FilledTooLarge, Matcher, Path, SchemaPlace, fill_defaults
from confide.strict_json import Json, format_pointer

# Messages contain this instead of the value.
_HIDDEN = "The value"
_MEMBER_NOT_ALLOWED = "The schema does not allow this member."
_NAME_NOT_ALLOWED = "The schema does not allow this member name."
_VALUE_NOT_ALLOWED = "The schema allows no value here."
_SENTENCES_OF_MEMBERS = {"propertyNames": _NAME_NOT_ALLOWED, "additionalProperties": _MEMBER_NOT_ALLOWED}
# Keywords that hold several schemas: in a path, a name or an index follows.
_KEYWORDS_WITH_SEVERAL = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "$defs", "allOf", "anyOf", "oneOf", "prefixItems"}
)
MAX_MESSAGE_CHARACTERS = 300
# The limit of places times subschemas up to which violations are listed one by one.
MAX_TO_EXPLAIN = 20_000
# The size of a compiled pattern is rounded up to one of these. The last one is the maximum.
PATTERN_BYTES = (2**10, 2**13, 2**16, 2**18, 2**20)
# Limits of the search for secrets with defaults.
MAX_PLACES, MAX_VISITS = 2_000, 20_000


@dataclass(frozen=True, slots=True)
class SchemaViolation:
    """A place that violates a rule of a schema, with the rule and its path in the schema. Never the value."""

    place: Path
    rule: str
    rule_at: str
    sentence: str

    def to_violation(self, *, inside: Path = ()) -> Violation:
        return Violation(format_pointer((*inside, *self.place)), self.rule, self.sentence)

    def hide_secrets(self, root: SecretPlace) -> SchemaViolation:
        """Return a violation without details inside a secret. `root` decides where secrets are."""
        place = root
        for number, part in enumerate(self.place, 1):
            place = place.get_element(part) if isinstance(part, int) else place.get_member(part)
            if place.is_secret:
                return SchemaViolation(self.place[:number], "secret", "", "The secret violates the schema.")
        return self


class Schema:
    """A compiled schema. Raises `SchemaInvalid` if the document is invalid or unsupported."""

    def __init__(self, document: Json) -> None:
        # Check the limits first, because the validator follows cycles and repeated references without a limit.
        reader = SchemaReader(document, matcher=_compile_pattern)
        root = reader.read()
        self._cost = reader.cost
        self.pattern_bytes = reader.pattern_bytes
        try:
            self._validator = _build_validator(document)
        except ValueError as error:
            raise _build_schema_error(error) from None
        self.place = SchemaPlace([root])
        _require_visible_root(self.place)
        self.has_defaults = _has_visible_defaults(self.place)
        self._filling = SchemaPlace([root], is_certain=True)

    def fill_defaults(self, configuration: Json) -> Json:
        """Add the defaults of missing members, unless that would make the configuration too large."""
        try:
            filled: Json = fill_defaults(configuration, self._filling) if self.has_defaults else configuration
        except FilledTooLarge:
            return configuration
        return filled

    def find_violations(self, configuration: Json, *, limit: int | None = None) -> list[SchemaViolation]:
        """List up to `limit` violations, after filling in the defaults.

        If listing them would take too long, return one violation of the whole configuration.
        """
        try:
            filled = fill_defaults(configuration, self._filling) if self.has_defaults else configuration
        except FilledTooLarge:
            return [SchemaViolation((), "default", "", "With its defaults, the configuration is larger than 256 KiB.")]
        if self._validator.is_valid(filled):
            return []
        if _count_places(filled) * self._cost > MAX_TO_EXPLAIN:
            return [
                SchemaViolation(
                    (), "schema", "", "The configuration violates the schema and is too large to list where."
                )
            ]
        violations = (
            violation for error in self._validator.iter_errors(filled) for violation in _describe_error(error, filled)
        )
        # An invalid configuration has a violation, even if the validator names no place.
        return list(itertools.islice(violations, limit)) or [
            SchemaViolation((), "schema", "", "The configuration violates the schema.")
        ]


def _count_places(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count_places, value.values()))
    return 1 + sum(map(_count_places, value)) if isinstance(value, list) else 1


def _describe_error(error: Any, configuration: Json) -> Iterator[SchemaViolation]:
    kind, at = error.kind, tuple(error.instance_path)
    rule_at = format_pointer(tuple(error.schema_path))
    rule = kind.name
    if rule == "required":
        yield SchemaViolation((*at, kind.property), rule, rule_at, "This member is required.")
    elif rule == "propertyNames":
        yield SchemaViolation((*at, kind.error.instance), rule, rule_at, _NAME_NOT_ALLOWED)
    elif rule == "falseSchema" and (keyword := _find_last_keyword(error.schema_path)) in _SENTENCES_OF_MEMBERS:
        # The validator reports the whole object, but each of its members violates the rule.
        inside = functools.reduce(lambda value, part: value[part], at, configuration)
        names = inside if isinstance(inside, dict) and inside else None
        sentence = _SENTENCES_OF_MEMBERS[keyword]
        yield from (SchemaViolation((*at, name), keyword, rule_at, sentence) for name in names or ())
        if names is None:
            yield SchemaViolation(at, rule, rule_at, _VALUE_NOT_ALLOWED)
    elif rule in ("additionalProperties", "unevaluatedProperties"):
        for name in kind.unexpected:
            yield SchemaViolation((*at, name), rule, rule_at, _MEMBER_NOT_ALLOWED)
    else:
        sentence = re.sub(r"\s+", " ", error.message)[:MAX_MESSAGE_CHARACTERS]
        yield SchemaViolation(at, rule, rule_at, sentence[:1].upper() + sentence[1:].rstrip(".") + ".")


def _find_last_keyword(path: Sequence[str | int]) -> str:
    """Return the keyword at the end of a path in a schema. Return an empty string for a name or an index."""
    is_after_keyword = False
    for part in path:
        is_keyword, is_after_keyword = not is_after_keyword, not is_after_keyword and part in _KEYWORDS_WITH_SEVERAL
    return str(path[-1]) if path and is_keyword else ""


def _compile_pattern(pattern: str) -> tuple[Matcher, int]:
    """Compile a pattern. Return its matcher and the smallest size limit that is enough, in bytes."""
    for size in PATTERN_BYTES[:-1]:
        with suppress(ValueError):
            return _build_validator({"pattern": pattern}, pattern_bytes=size).is_valid, size
    return _build_validator({"pattern": pattern}).is_valid, PATTERN_BYTES[-1]


def _build_validator(document: Json, *, pattern_bytes: int = PATTERN_BYTES[-1]) -> Any:
    # An import at the top of the module would make the start a tenth slower.
    import jsonschema_rs  # noqa: PLC0415 - see above

    # The engine of these options matches in linear time and limits the memory of a pattern.
    pattern_options = jsonschema_rs.RegexOptions(size_limit=pattern_bytes, dfa_size_limit=1 << 20)
    return jsonschema_rs.Draft202012Validator(
        document, validate_formats=True, mask=_HIDDEN, offline=True, pattern_options=pattern_options
    )


def _build_schema_error(error: Exception) -> SchemaInvalid:
    at = tuple(getattr(error, "instance_path", ()))
    return SchemaInvalid(
        violations=(
            Violation(
                format_pointer(("schema", *at)), SchemaInvalid.code, "This is not a valid JSON Schema. Correct it."
            ),
        )
    )


def _require_visible_root(root: SchemaPlace) -> None:
    """Reject a secret root, because a viewer sees the names of its members and which of them changed."""
    for subschema in root.applied:
        if subschema.write_only:
            sentence = "A configuration as a whole cannot be secret. Mark its members."
            raise SchemaInvalid(
                violations=(
                    Violation(format_pointer(("schema", *subschema.path, "writeOnly")), SchemaInvalid.code, sentence),
                )
            )


def _has_visible_defaults(root: SchemaPlace) -> bool:
    """Return whether the schema has defaults. Raises `SchemaInvalid` if a default is secret or the mask."""
    seen: set[tuple[frozenset[int], bool]] = set()
    pending, has_defaults, visits = [(root, False)], False, 0
    while pending:
        place, is_inside_secret = pending.pop()
        is_secret = is_inside_secret or place.is_secret
        for subschema in place.applied:
            if subschema.default is NO_DEFAULT:
                continue
            has_defaults = True
            default = subschema.default
            if is_secret or has_mask(default) or mask(default, place) != default:
                at = format_pointer(("schema", *subschema.path, "default"))
                raise SchemaInvalid(
                    violations=(Violation(at, SchemaInvalid.code, "A secret cannot have a default. Remove it."),)
                )
        for inside in place.list_places_inside():
            visits += 1
            identity = (frozenset(map(id, inside.applied)), is_secret)
            if inside.applied and identity not in seen:
                seen.add(identity)
                pending.append((inside, is_secret))
            if len(seen) > MAX_PLACES or visits > MAX_VISITS:
                raise SchemaInvalid("The schema describes too many places. Simplify it.")
    return has_defaults
