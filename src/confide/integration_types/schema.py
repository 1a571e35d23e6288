"""JSON Schema 2020-12 of an integration type: compiled once, offline, bounded in time."""

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
from confide.integration_types.masking import Place, holds_mask, masked
from confide.integration_types.schema_limits import Reader
from confide.integration_types.subschemas import NO_DEFAULT, FilledTooLarge, Matcher, Path, SchemaPlace, filled
from confide.strict_json import Json, pointer

# Shown in the place of what was sent.
_HIDDEN = "The value"
_NO_SUCH_MEMBER = "The schema knows no such member."
_NAME_NOT_TAKEN = "A member has a name that the schema does not take."
_NOTHING_MAY_BE_HERE = "Nothing may stand here."
_OF_EACH_MEMBER = {"propertyNames": _NAME_NOT_TAKEN, "additionalProperties": _NO_SUCH_MEMBER}
# Keywords below which a name or an index comes before the next keyword.
_KEYWORDS_OF_MANY = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "$defs", "allOf", "anyOf", "oneOf", "prefixItems"}
)
MOST_MESSAGE_CHARACTERS = 300
# Places of a configuration times subschemas that are looked at for each: what breaks is then said one by one.
MOST_TO_EXPLAIN = 20_000
# How much a compiled pattern may take: the least of these that is enough is what it counts as, the last one the most.
PATTERN_BYTES = (2**10, 2**13, 2**16, 2**18, 2**20)
# Places that are looked at for defaults on secrets.
MOST_PLACES, MOST_LOOKS = 2_000, 20_000


@dataclass(frozen=True, slots=True)
class SchemaViolation:
    """A place that breaks a rule of the schema, and the rule: never the value."""

    place: Path
    rule: str
    rule_at: str
    sentence: str

    def as_fault(self, *, inside: Path = ()) -> Violation:
        return Violation(pointer((*inside, *self.place)), self.rule, self.sentence)

    def hidden(self, root: Place) -> SchemaViolation:
        """What may be told to those who may not see secrets: of what stands in one, only that it breaks the schema."""
        place = root
        for number, part in enumerate(self.place, 1):
            place = place.element(part) if isinstance(part, int) else place.member(part)
            if place.is_secret:
                return SchemaViolation(self.place[:number], "secret", "", "What is secret here breaks the schema.")
        return self


class Schema:
    """A compiled schema; raises `SchemaInvalid` if it is none, or one that is not taken."""

    def __init__(self, document: Json) -> None:
        # First what could go round in circles or be looked at too often: the validator follows it blindly.
        reader = Reader(document, matcher=_matcher)
        root = reader.read()
        self._price = reader.price
        self.pattern_bytes = reader.pattern_bytes
        try:
            self._validator = _validator(document)
        except ValueError as error:
            raise _refused(error) from None
        self.place = SchemaPlace([root])
        _must_not_be_secret_as_a_whole(self.place)
        self.has_defaults = _must_hide_no_default(self.place)
        self._filling = SchemaPlace([root], is_certain=True)

    def filled(self, configuration: Json) -> Json:
        """The configuration with the defaults of what was left out; without, where they would make it too large."""
        try:
            whole: Json = filled(configuration, self._filling) if self.has_defaults else configuration
        except FilledTooLarge:
            return configuration
        return whole

    def violations(self, configuration: Json, *, most: int | None = None) -> list[SchemaViolation]:
        """What breaks the schema, defaults filled in; all of it, or the first of it.

        Of a configuration so large that to say where would take long, only that it does.
        """
        try:
            whole = filled(configuration, self._filling) if self.has_defaults else configuration
        except FilledTooLarge:
            return [SchemaViolation((), "default", "", "With its defaults it would be larger than a body may be.")]
        if self._validator.is_valid(whole):
            return []
        if _places(whole) * self._price > MOST_TO_EXPLAIN:
            return [SchemaViolation((), "schema", "", "It breaks the schema, and is too large to say where.")]
        found = (violation for error in self._validator.iter_errors(whole) for violation in _faults(error, whole))
        # Nobody may be let pass because no place was found.
        return list(itertools.islice(found, most)) or [SchemaViolation((), "schema", "", "It breaks the schema.")]


def _places(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_places, value.values()))
    return 1 + sum(map(_places, value)) if isinstance(value, list) else 1


def _faults(error: Any, whole: Json) -> Iterator[SchemaViolation]:
    kind, at = error.kind, tuple(error.instance_path)
    rule_at = pointer(tuple(error.schema_path))
    rule = kind.name
    if rule == "required":
        yield SchemaViolation((*at, kind.property), rule, rule_at, "It is required.")
    elif rule == "propertyNames":
        yield SchemaViolation((*at, kind.error.instance), rule, rule_at, _NAME_NOT_TAKEN)
    elif rule == "falseSchema" and (keyword := _last_keyword(error.schema_path)) in _OF_EACH_MEMBER:
        # Told of the whole object, where nothing else is said of its members: it is each of them.
        inside = functools.reduce(lambda value, part: value[part], at, whole)
        names = inside if isinstance(inside, dict) and inside else None
        sentence = _OF_EACH_MEMBER[keyword]
        yield from (SchemaViolation((*at, name), keyword, rule_at, sentence) for name in names or ())
        if names is None:
            yield SchemaViolation(at, rule, rule_at, _NOTHING_MAY_BE_HERE)
    elif rule in ("additionalProperties", "unevaluatedProperties"):
        for name in kind.unexpected:
            yield SchemaViolation((*at, name), rule, rule_at, _NO_SUCH_MEMBER)
    else:
        sentence = re.sub(r"\s+", " ", error.message)[:MOST_MESSAGE_CHARACTERS]
        yield SchemaViolation(at, rule, rule_at, sentence[:1].upper() + sentence[1:].rstrip(".") + ".")


def _last_keyword(path: Sequence[str | int]) -> str:
    """The keyword that a path of a schema ends with; empty where it ends with a name or an index below one."""
    is_below = False
    for part in path:
        is_keyword, is_below = not is_below, not is_below and part in _KEYWORDS_OF_MANY
    return str(path[-1]) if path and is_keyword else ""


def _matcher(pattern: str) -> tuple[Matcher, int]:
    """What matches a pattern, with the smallest of some sizes that it can be compiled in."""
    for size in PATTERN_BYTES[:-1]:
        with suppress(ValueError):
            return _validator({"pattern": pattern}, pattern_bytes=size).is_valid, size
    return _validator({"pattern": pattern}).is_valid, PATTERN_BYTES[-1]


def _validator(document: Json, *, pattern_bytes: int = PATTERN_BYTES[-1]) -> Any:
    # Imported when first needed: it would make the start slower by a tenth.
    import jsonschema_rs  # noqa: PLC0415 - as said

    # An engine that takes time in proportion to the text, and refuses patterns that would take much memory.
    patterns = jsonschema_rs.RegexOptions(size_limit=pattern_bytes, dfa_size_limit=1 << 20)
    return jsonschema_rs.Draft202012Validator(
        document, validate_formats=True, mask=_HIDDEN, offline=True, pattern_options=patterns
    )


def _refused(error: Exception) -> SchemaInvalid:
    at = tuple(getattr(error, "instance_path", ()))
    return SchemaInvalid(
        violations=(Violation(pointer(("schema", *at)), SchemaInvalid.code, "This is no valid JSON Schema."),)
    )


def _must_not_be_secret_as_a_whole(root: SchemaPlace) -> None:
    """A viewer sees the members of a configuration, and which of them changed."""
    for subschema in root.applied:
        if subschema.write_only:
            sentence = "A configuration as a whole is not secret: say it of its members."
            raise SchemaInvalid(
                violations=(Violation(pointer(("schema", *subschema.path, "writeOnly")), SchemaInvalid.code, sentence),)
            )


def _must_hide_no_default(root: SchemaPlace) -> bool:
    """Whether there are defaults; raises `SchemaInvalid` if one of them fills a secret, or is the mask."""
    met: set[tuple[frozenset[int], bool]] = set()
    waiting, has_defaults, looks = [(root, False)], False, 0
    while waiting:
        place, is_inside_secret = waiting.pop()
        is_secret = is_inside_secret or place.is_secret
        for subschema in place.applied:
            if subschema.default is NO_DEFAULT:
                continue
            has_defaults = True
            default = subschema.default
            if is_secret or holds_mask(default) or masked(default, place) != default:
                at = pointer(("schema", *subschema.path, "default"))
                raise SchemaInvalid(violations=(Violation(at, SchemaInvalid.code, "A secret has no default."),))
        for inside in place.all_inside():
            looks += 1
            known = (frozenset(map(id, inside.applied)), is_secret)
            if inside.applied and known not in met:
                met.add(known)
                waiting.append((inside, is_secret))
            if len(met) > MOST_PLACES or looks > MOST_LOOKS:
                raise SchemaInvalid("The schema describes too many places. Simplify it.")
    return has_defaults
