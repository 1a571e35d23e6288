"""Compile and apply the JSON Schema of an integration type: offline and in bounded time."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import quote

from confide.errors import MAX_LISTED_VIOLATIONS, MAX_POINTER_CHARACTERS, Violation
from confide.integration_types.dialects import Dialect
from confide.integration_types.errors import SchemaInvalid
from confide.integration_types.masking import PREVIOUS_RULES, Path, SecretPlace
from confide.integration_types.schema_limits import SchemaReader
from confide.integration_types.subschemas import (
    NO_DEFAULT,
    FilledTooLarge,
    Matcher,
    SchemaPlace,
    Subschema,
    fill_defaults,
)
from confide.integration_types.validation_cost import MAX_POSSIBLE_VIOLATIONS, CostMeter, TooCostly
from confide.slices import pause_if_due
from confide.strict_json import Json, format_pointer

# Messages contain this instead of the value.
_HIDDEN = "The value"
_MEMBER_NOT_ALLOWED = "The schema does not allow this member."
_NAME_NOT_ALLOWED = "The schema does not allow this member name."
_VALUE_NOT_ALLOWED = "The schema allows no value here."
_TOO_LARGE_TO_LIST = "The configuration violates the schema and is too large to list where."
_PART_TOO_LARGE_TO_LIST = "This value violates the schema and is too large to list where."
_TOO_COSTLY = (
    "Checking this configuration against the schema would take too long. Use fewer values, or a schema with fewer"
    " names, patterns and alternatives."
)
_FILLED_TOO_LARGE = "With its defaults, the configuration is larger than 256 KiB or has more than 32 levels."
_SENTENCES_OF_MEMBERS = {"propertyNames": _NAME_NOT_ALLOWED, "additionalProperties": _MEMBER_NOT_ALLOWED}
# Keywords that hold schemas by name: in a path, a name follows.
_KEYWORDS_WITH_NAMES = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"}
)
# The name of a schema in references to its parts.
_OWN_URI = "urn:confide:schema"
MAX_MESSAGE_CHARACTERS = 300
# The number of validators of parts of a schema that are kept.
MAX_PART_VALIDATORS = 256
# The size of a compiled pattern is rounded up to one of these. The last one is the maximum.
PATTERN_BYTES = (2**10, 2**11, 2**12, 2**13, 2**14, 2**16, 2**18, 2**20)


@dataclass(frozen=True, slots=True)
class SchemaViolation:
    """A place that violates a rule of a schema, with the rule and its path in the schema. Never the value."""

    place: Path
    rule: str
    rule_at: str
    sentence: str

    def to_violation(self, *, inside: Path = ()) -> Violation:
        return Violation(format_pointer((*inside, *self.place)), self.rule, self.sentence)

    def hide_secrets(self, root: SecretPlace, configuration: Json) -> SchemaViolation:
        """Return a violation without details inside a secret. `root` decides where secrets are."""
        place: SecretPlace = root
        value: Any = configuration
        for number, part in enumerate(self.place, 1):
            if isinstance(part, int):
                place = place.get_element(part)
            else:
                place = place.get_member_of(part, value) if isinstance(value, dict) else place.get_member(part)
            value = _get_inner(value, part)
            if place.is_hiding(value):
                return SchemaViolation(self.place[:number], "secret", "", "The secret violates the schema.")
        return self


class FoundViolations(NamedTuple):
    """The violations of a configuration. If they are not complete, there can be others."""

    violations: list[SchemaViolation]
    is_complete: bool


class Schema:
    """A compiled schema. Raises `SchemaInvalid` if the document is invalid or unsupported."""

    def __init__(self, document: Json) -> None:
        # Check the limits first, because the validator follows cycles and repeated references without a limit.
        reader = SchemaReader(document, matcher=_compile_pattern)
        self._root = reader.read()
        self._cost = CostMeter([self._root])
        self.dialect = reader.dialect
        self.pattern_bytes = reader.pattern_bytes
        self._document = document
        self._parts: dict[tuple[Path, ...], _PartValidator] = {}
        try:
            self._validator = _build_validator(document, dialect=reader.dialect)
        except ValueError as error:
            raise _build_schema_error(error) from None
        with_defaults = [one for one in reader.subschemas if one.default is not NO_DEFAULT]
        # The places of defaults that violate their own schema. A read does not fill them in.
        self.broken_defaults = _find_broken_defaults(with_defaults, document, dialect=reader.dialect)
        self.ignored_defaults = reader.ignored_defaults
        self.place = SchemaPlace([self._root])
        # A configuration as a whole is never secret, although a schema of an earlier release can say so.
        self.place.is_secret = False
        self.has_defaults = len(with_defaults) > len(self.broken_defaults)
        for one in with_defaults:
            one.has_broken_default = one.path in self.broken_defaults
        self._filling = SchemaPlace([self._root], is_certain=True)

    def build_previous_place(self) -> SecretPlace:
        """Build the root of the places that decide by the rules of the previous release."""
        return SchemaPlace([self._root], rules=PREVIOUS_RULES)

    def fill_defaults(self, configuration: Json) -> Json:
        """Add the defaults of missing members, unless that would make the configuration too large."""
        try:
            filled: Json = fill_defaults(configuration, self._filling) if self.has_defaults else configuration
        except FilledTooLarge:
            return configuration
        return filled

    def find_violations(self, configuration: Json) -> list[SchemaViolation]:
        """Find up to `MAX_LISTED_VIOLATIONS` violations, as `check` does."""
        return self.check(configuration).violations

    def check(self, configuration: Json) -> FoundViolations:
        """Find up to `MAX_LISTED_VIOLATIONS` violations, after filling in the defaults.

        A configuration that would take too long to check is a violation. If it only takes too long to list all
        violations at once, they are listed part by part, without those of conditional subschemas.
        """
        try:
            filled = fill_defaults(configuration, self._filling) if self.has_defaults else configuration
        except FilledTooLarge:
            return _reject_as_a_whole(_FILLED_TOO_LARGE, rule="default")
        try:
            cost = self._cost.measure(filled)
        except TooCostly:
            return _reject_as_a_whole(_TOO_COSTLY)
        pause_if_due()
        if self._validator.is_valid(filled):
            return FoundViolations([], is_complete=True)
        pause_if_due()
        has_all = cost.violations <= MAX_POSSIBLE_VIOLATIONS
        listed = _list_errors(self._validator, filled) if has_all else self._find_in_parts(filled, self._filling, ())
        found = _take_listed(listed)
        # An invalid configuration has a violation, even if the validator names no place.
        if not found:
            return _reject_as_a_whole(_TOO_LARGE_TO_LIST)
        return FoundViolations(found, is_complete=has_all and next(listed, None) is None)

    def _find_in_parts(self, value: Any, place: SchemaPlace, path: Path) -> Iterator[SchemaViolation]:
        """Find violations in the largest parts that can be listed at once. Only certain subschemas apply to them."""
        if not place.subschemas:
            return
        part = self._get_part_validator(place)
        pause_if_due()
        if part.validator.is_valid(value):
            return
        pause_if_due()
        if part.cost.measure(value).violations <= MAX_POSSIBLE_VIOLATIONS:
            found = _list_errors(part.validator, value)
            yield from (replace(violation, place=(*path, *violation.place)) for violation in found)
            return
        has_found = False
        for step, inner in _list_inside(value):
            inner_place = place.get_member(step) if isinstance(step, str) else place.get_element(step)
            for violation in self._find_in_parts(inner, inner_place, (*path, step)):
                has_found = True
                yield violation
        if not has_found and path:
            yield SchemaViolation(path, "schema", "", _PART_TOO_LARGE_TO_LIST)

    def _get_part_validator(self, place: SchemaPlace) -> _PartValidator:
        paths = tuple(subschema.path for subschema in place.subschemas)
        found = self._parts.get(paths)
        if found is None:
            if len(self._parts) >= MAX_PART_VALIDATORS:
                self._parts.clear()
            registry = _build_registry(self._document, dialect=self.dialect)
            references = [{"$ref": _format_reference(path)} for path in paths]
            validator = _build_validator({"allOf": references}, dialect=self.dialect, registry=registry)
            found = self._parts[paths] = _PartValidator(validator, CostMeter(place.subschemas))
        return found


def _take_listed(listed: Iterator[SchemaViolation]) -> list[SchemaViolation]:
    """Take the first violations, up to a number and a size that fit into a response."""
    left = MAX_POINTER_CHARACTERS
    taken = []
    for violation in itertools.islice(listed, MAX_LISTED_VIOLATIONS):
        taken.append(violation)
        left -= sum(len(part) if isinstance(part, str) else 1 for part in violation.place)
        if left < 0:
            break
    return taken


def _reject_as_a_whole(sentence: str, *, rule: str = "schema") -> FoundViolations:
    return FoundViolations([SchemaViolation((), rule, "", sentence)], is_complete=False)


class _PartValidator(NamedTuple):
    """The validator of some subschemas of a schema, and the cost of its calls."""

    validator: Any
    cost: CostMeter


def _list_inside(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _list_errors(validator: Any, value: Any) -> Iterator[SchemaViolation]:
    return (violation for error in validator.iter_errors(value) for violation in _describe_error(error, value))


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
    last_keyword = ""
    for part in path:
        is_keyword = isinstance(part, str) and last_keyword not in _KEYWORDS_WITH_NAMES
        last_keyword = str(part) if is_keyword else ""
    return last_keyword


def _get_inner(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (LookupError, TypeError):
        return None


def _find_broken_defaults(subschemas: list[Subschema], document: Json, *, dialect: Dialect) -> frozenset[Path]:
    """Find the defaults that violate their own schema, also after its inner defaults are filled in."""
    if not subschemas:
        return frozenset()
    # One validator for all: the member with the number of a default must match its schema.
    registry = _build_registry(document, dialect=dialect)
    properties = {str(number): {"$ref": _format_reference(one.path)} for number, one in enumerate(subschemas)}
    validator = _build_validator({"properties": properties}, dialect=dialect, registry=registry)

    def is_valid(number: int, value: Any) -> bool:
        valid: bool = validator.is_valid({str(number): value})
        return valid

    def is_valid_when_filled(number: int, one: Subschema) -> bool:
        if not isinstance(one.default, dict | list):
            return False
        try:
            return is_valid(number, fill_defaults(one.default, SchemaPlace([one], is_certain=True)))
        except FilledTooLarge:
            return True

    return frozenset(
        one.path
        for number, one in enumerate(subschemas)
        if not is_valid(number, one.default) and not is_valid_when_filled(number, one)
    )


def _build_registry(document: Json, *, dialect: Dialect) -> Any:
    """Build a registry in which other schemas can refer to the parts of a schema."""
    import jsonschema_rs  # noqa: PLC0415 - as in `_build_validator`

    # References of a schema are only to its own parts, so its `$id` is not needed. It can be relative, which this URI
    # cannot resolve.
    own = {keyword: value for keyword, value in document.items() if keyword != "$id"} | {"$schema": dialect.url}
    return jsonschema_rs.Registry([(_OWN_URI, own)])


def _format_reference(path: Path) -> str:
    return f"{_OWN_URI}#{quote(format_pointer(path))}"


def _compile_pattern(pattern: str) -> tuple[Matcher, int]:
    """Compile a pattern. Return its matcher and the smallest size limit that is enough, in bytes."""
    for size in PATTERN_BYTES[:-1]:
        with suppress(ValueError):
            return _build_validator({"pattern": pattern}, pattern_bytes=size).is_valid, size
    return _build_validator({"pattern": pattern}).is_valid, PATTERN_BYTES[-1]


def _build_validator(
    document: Json,
    *,
    dialect: Dialect = Dialect.DRAFT_2020_12,
    registry: Any = None,
    pattern_bytes: int = PATTERN_BYTES[-1],
) -> Any:
    # An import at the top of the module would make the start a tenth slower.
    import jsonschema_rs  # noqa: PLC0415 - see above

    # The engine of these options matches in linear time and limits the memory of a pattern.
    pattern_options = jsonschema_rs.RegexOptions(size_limit=pattern_bytes, dfa_size_limit=1 << 20)
    validators = {
        Dialect.DRAFT_07: jsonschema_rs.Draft7Validator,
        Dialect.DRAFT_2019_09: jsonschema_rs.Draft201909Validator,
        Dialect.DRAFT_2020_12: jsonschema_rs.Draft202012Validator,
    }
    return validators[dialect](
        document,
        validate_formats=True,
        mask=_HIDDEN,
        offline=True,
        registry=registry,
        pattern_options=pattern_options,
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
