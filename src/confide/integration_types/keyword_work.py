"""The work that the keywords of a subschema cause for jsonschema-rs, in units of about 10 ns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from confide.slices import iterate, pause_if_due
from confide.strict_json import Json, write

# For each character and each KiB of a compiled pattern, if the matcher cannot build a deterministic automaton.
_CHARACTER_OF_PATTERN_KIB = 4.5
_CHARACTER_OF_FORMAT = 0.5
# Internationalized names are decoded and normalized.
_CHARACTER_OF_IDN = 15
# The message of a violation repeats the options of `enum` and `const`. This many bytes take as long as a violation.
_MESSAGE_BYTES = 2_000
_ASSERTIONS = frozenset(
    {
        "additionalProperties",
        "anyOf",
        "const",
        "contains",
        "dependencies",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "not",
        "oneOf",
        "pattern",
        "type",
        "uniqueItems",
    }
)
_EVERY_MEMBER = ("additionalProperties", "propertyNames", "unevaluatedProperties")


@dataclass(frozen=True, slots=True)
class KeywordWork:
    """The work of the keywords of one subschema at one place."""

    # Names that each object is checked for.
    names: int
    dependencies: int
    options: int
    # The number of values in the largest option that is an object or an array.
    option_values: int
    is_unique: bool
    has_multiple_of: bool
    has_unevaluated: bool
    # For each character of a string, by its format and by `pattern`, and for each character of a member name.
    format_character: float
    string_character: float
    name_character: float
    # The number of `patternProperties`.
    patterns: int
    # Violations that one value can have, and those that each member of an object can have.
    violations: int
    violations_of_member: int


def measure_keywords(document: Json, *, pattern_bytes: int = 0, name_pattern_bytes: Iterable[int] = ()) -> KeywordWork:
    """Measure a subschema: `pattern_bytes` is the compiled size of `pattern`, the others are of `patternProperties`."""
    dependent = [document.get(keyword) for keyword in ("dependentRequired", "dependencies", "dependentSchemas")]
    dependencies = [one for one in dependent if isinstance(one, dict)]
    lists = [names for one in dependencies for names in one.values() if isinstance(names, list)]
    required = document.get("required")
    names = (len(required) if isinstance(required, list) else 0) + sum(map(len, lists))
    enum = document.get("enum")
    options = [*(enum if isinstance(enum, list) else ()), *([document["const"]] if "const" in document else ())]
    containers = [option for option in options if isinstance(option, dict | list)]
    sizes = list(name_pattern_bytes)
    return KeywordWork(
        names=names,
        dependencies=sum(map(len, dependencies)),
        options=len(containers),
        option_values=max(map(count_values, containers), default=0),
        is_unique=document.get("uniqueItems") is True,
        has_multiple_of="multipleOf" in document,
        format_character=_get_format_work(document.get("format")),
        has_unevaluated="unevaluatedProperties" in document or "unevaluatedItems" in document,
        string_character=_CHARACTER_OF_PATTERN_KIB * pattern_bytes / 1024,
        name_character=_CHARACTER_OF_PATTERN_KIB * sum(sizes) / 1024,
        patterns=len(sizes),
        violations=len(_ASSERTIONS & document.keys()) + names + len(write(options)) // _MESSAGE_BYTES,
        violations_of_member=sum(keyword in document for keyword in _EVERY_MEMBER),
    )


def _get_format_work(format_name: object) -> float:
    if not isinstance(format_name, str):
        return 0
    return _CHARACTER_OF_IDN if format_name.startswith("idn-") else _CHARACTER_OF_FORMAT


def count_values(value: Any) -> int:
    """Count a value with all values inside it. The members of an object count, not their names."""
    count, pending = 1, [value]
    while pending:
        pause_if_due()
        container = pending.pop()
        inside = list(container.values()) if isinstance(container, dict) else container
        count += len(inside)
        pending += [inner for inner in iterate(inside) if isinstance(inner, dict | list)]
    return count


NO_WORK = measure_keywords({})
# The schema `false` is a violation for every value.
WORK_OF_FALSE = measure_keywords({"not": {}})
