"""Bound the time that jsonschema-rs takes for a configuration, before it is called: no call of it can be paused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from confide.integration_types.keyword_work import count_values
from confide.integration_types.subschemas import Subschema
from confide.slices import iterate, pause_if_due
from confide.strict_json import Json

# The units of work in one call. A unit takes about 10 ns, so a call takes at most 5 ms.
MAX_WORK_UNITS = 500_000
# The number of violations that one call can list. Each takes about 6 µs.
MAX_POSSIBLE_VIOLATIONS = 800

# Measured with jsonschema-rs 0.60, each in units.
_VISIT, _NAME, _DEPENDENCY, _OPTION, _OPTION_VALUE, _UNIQUE_VALUE = 2, 2, 2, 2, 12, 8
_FORMAT, _MULTIPLE_OF, _LARGE_INTEGER, _UNEVALUATED, _PATTERN = 80, 300, 800, 3, 3
# Bits of an integer above which comparing it is slow.
_LARGE_BITS = 64
# The number of cached places. More of them are forgotten together.
_MAX_PLACES = 4_096

Counted = Mapping[Subschema, int]


class Cost(NamedTuple):
    """An upper bound of the work of one call, and of the violations that it can list."""

    units: float
    violations: int


class TooCostly(Exception):
    """The cost is above the limit."""


class _CostPlace:
    """A place of a configuration, with the number of visits of each subschema there."""

    __slots__ = (
        "_elements",
        "_known",
        "_longest",
        "_members",
        "_others",
        "applied",
        "names",
        "object_units",
        "violations",
        "visits",
    )

    def __init__(self, counted: Counted, known: dict[frozenset[tuple[Subschema, int]], _CostPlace]) -> None:
        self.applied: Counter[Subschema] = Counter()
        pending = list(counted.items())
        while pending:
            subschema, count = pending.pop()
            self.applied[subschema] += count
            pending += [(same, count) for same in subschema.same]
        self.visits = self.applied.total()
        self.object_units = self._sum(lambda one: _NAME * one.work.names + _DEPENDENCY * one.work.dependencies)
        self.violations = self._sum(lambda one: one.work.violations)
        # Places with the same subschemas share one object, also in a recursive schema.
        self._known = known
        self._longest = max((len(one.elements) for one in self.applied), default=0)
        self._members: dict[str, _CostPlace] = {}
        self._elements: dict[int, _CostPlace] = {}
        self._others: _CostPlace | None = None
        # The place of the names of members.
        self.names = (
            self._get_place(_list_for_names) if any("propertyNames" in one.inside for one in self.applied) else None
        )

    def get_member(self, name: str) -> _CostPlace:
        found = self._members.get(name)
        if found is not None:
            return found
        if any(name in one.members for one in self.applied):
            found = self._members[name] = self._get_place(lambda one: _list_for_member(one, name))
            return found
        if self._others is None:
            self._others = self._get_place(lambda one: _list_for_member(one, name))
        return self._others

    def get_element(self, index: int) -> _CostPlace:
        kind = min(index, self._longest)
        found = self._elements.get(kind)
        if found is None:
            found = self._elements[kind] = self._get_place(lambda one: one.find_for_element(kind))
        return found

    def _get_place(self, select: Callable[[Subschema], Iterable[Subschema]]) -> _CostPlace:
        counted: Counter[Subschema] = Counter()
        for one, count in self.applied.items():
            for subschema in select(one):
                counted[subschema] += count
        key = frozenset(counted.items())
        found = self._known.get(key)
        if found is None:
            found = _CostPlace(counted, self._known)
            self._known[key] = found
        return found

    def _sum(self, measure: Callable[[Subschema], int]) -> int:
        return sum(count * measure(one) for one, count in self.applied.items())


class CostMeter:
    """Measures the cost of values under some subschemas. Places are cached for the next value."""

    def __init__(self, subschemas: Iterable[Subschema]) -> None:
        self._subschemas = Counter(subschemas)
        self._known: dict[frozenset[tuple[Subschema, int]], _CostPlace] = {}
        self._root = _CostPlace(self._subschemas, self._known)

    def measure(self, value: Any) -> Cost:
        """Return the cost of a value. Raises `TooCostly` if it is above `MAX_WORK_UNITS`."""
        if len(self._known) > _MAX_PLACES:
            self._known.clear()
            self._root = _CostPlace(self._subschemas, self._known)
        measurement = _Measurement()
        measurement.add(value, self._root)
        return Cost(MAX_WORK_UNITS - measurement.left, measurement.violations)


class _Measurement:
    """The cost of one value, while it is added up."""

    def __init__(self) -> None:
        self.left: float = MAX_WORK_UNITS
        self.violations = 0

    def add(self, value: Any, place: _CostPlace) -> None:
        if not place.applied:
            return
        self.violations += place.violations
        self._spend(_VISIT * place.visits)
        if isinstance(value, dict):
            pause_if_due()
            self._add_object(value, place)
        elif isinstance(value, list):
            pause_if_due()
            self._add_list(value, place)
        elif isinstance(value, str):
            self._add_string(value, place)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            large = isinstance(value, int) and value.bit_length() > _LARGE_BITS
            multiples = sum(count for one, count in place.applied.items() if one.work.has_multiple_of)
            self._spend(_MULTIPLE_OF * multiples + (_LARGE_INTEGER * place.visits if large else 0))

    def _add_object(self, value: Json, place: _CostPlace) -> None:
        self._add_container(value, place)
        self._spend(place.object_units)
        for one, count in place.applied.items():
            self.violations += count * one.work.violations_of_member * len(value)
            if one.work.patterns:
                characters = sum(map(len, value))
                self._spend(count * (_PATTERN * one.work.patterns * len(value) + one.work.name_character * characters))
        for name, inner in value.items():
            if place.names is not None:
                self.add(name, place.names)
            self.add(inner, place.get_member(name))

    def _add_list(self, value: list[Any], place: _CostPlace) -> None:
        self._add_container(value, place)
        for index, inner in enumerate(iterate(value)):
            self.add(inner, place.get_element(index))

    def _add_container(self, value: Any, place: _CostPlace) -> None:
        for one, count in place.applied.items():
            work = one.work
            if work.is_unique or work.options:
                values = count_values(value)
                compared = work.options * (_OPTION + _OPTION_VALUE * (min(values, work.option_values) - 1))
                self._spend(count * (compared + (_UNIQUE_VALUE * values if work.is_unique else 0)))
            if work.has_unevaluated:
                # Each member or element is looked up in the results of all other subschemas of this place.
                self._spend(count * _UNEVALUATED * len(value) * place.visits)

    def _add_string(self, value: str, place: _CostPlace) -> None:
        for one, count in place.applied.items():
            if one.work.string_character:
                self._spend(count * one.work.string_character * len(value))
            if one.work.format_character:
                self._spend(count * (_FORMAT + one.work.format_character * len(value)))

    def _spend(self, units: float) -> None:
        self.left -= units
        if self.left < 0:
            raise TooCostly


def _list_for_member(one: Subschema, name: str) -> list[Subschema]:
    """List the subschemas that can apply to a member. Each pattern counts as one that matches."""
    found = [subschema for _, subschema in one.patterns]
    if name in one.members:
        found.append(one.members[name])
    elif "additionalProperties" in one.inside:
        found.append(one.inside["additionalProperties"])
    if "unevaluatedProperties" in one.inside:
        found.append(one.inside["unevaluatedProperties"])
    return found


def _list_for_names(one: Subschema) -> list[Subschema]:
    return [one.inside["propertyNames"]] if "propertyNames" in one.inside else []
