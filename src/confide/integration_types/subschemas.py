"""Which parts of a JSON Schema (2020-12) apply to a place of a configuration: for defaults, secrets and their price."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from confide.integration_types.masking import Place, is_secret
from confide.strict_json import MAX_BODY_BYTES, write

Matcher = Callable[[str], bool]
Path = tuple[str | int, ...]

NO_DEFAULT: Any = object()
# Places of a schema that are remembered; recursion and patterns can make ever new ones.
MOST_KNOWN = 4_096


class Subschema:
    """One subschema with those that it applies to the same place and to the places inside it."""

    __slots__ = ("always", "default", "elements", "inside", "members", "path", "patterns", "same", "write_only")

    def __init__(self, path: Path) -> None:
        self.path = path
        # Applied to the same place: all of them, and those that apply whatever stands there.
        self.same: list[Subschema] = []
        self.always: list[Subschema] = []
        self.members: dict[str, Subschema] = {}
        self.patterns: list[tuple[Matcher, Subschema]] = []
        self.elements: list[Subschema] = []
        self.inside: dict[str, Subschema] = {}
        self.write_only: bool | None = None
        self.default = NO_DEFAULT

    def of_member(self, name: str, *, is_certain: bool = False) -> Iterator[Subschema]:
        """Those that may apply to a member of that name, or surely do."""
        is_known = name in self.members
        if is_known:
            yield self.members[name]
        for matches, subschema in self.patterns:
            if matches(name):
                is_known = True
                yield subschema
        if not is_known and "additionalProperties" in self.inside:
            yield self.inside["additionalProperties"]
        if not is_certain and "unevaluatedProperties" in self.inside:
            yield self.inside["unevaluatedProperties"]

    def of_element(self, index: int, *, is_certain: bool = False) -> Iterator[Subschema]:
        if index < len(self.elements):
            yield self.elements[index]
        elif "items" in self.inside:
            yield self.inside["items"]
        for keyword in ("contains", "unevaluatedItems"):
            if not is_certain and keyword in self.inside:
                yield self.inside[keyword]


Known = dict[tuple[tuple[int, ...], bool], "SchemaPlace"]


class SchemaPlace(Place):
    """A place of a configuration as a schema sees it; where the same subschemas apply, it is the same object.

    Secret is what any subschema that can apply there says is `writeOnly`; where none says anything, the name decides.
    What was met is remembered for the next configuration. With `is_certain` only those count that apply whatever
    stands there.
    """

    __slots__ = ("_elements", "_is_certain", "_known", "_longest", "_named", "_others", "applied", "defaults")

    def __init__(
        self,
        begun: Iterable[Subschema],
        *,
        has_secret_name: bool = False,
        is_certain: bool = False,
        known: Known | None = None,
    ) -> None:
        self.applied = tuple(_all_at_one_place(iter(begun), is_certain=is_certain))
        said = {subschema.write_only for subschema in self.applied}
        super().__init__(is_secret=True in said or (False not in said and has_secret_name))
        self._is_certain = is_certain
        # All places of a schema that were met, by what applies there.
        self._known = {} if known is None else known
        # Members of a name that a pattern may match are looked at each time.
        self._named: dict[str, SchemaPlace] | None = None if any(one.patterns for one in self.applied) else {}
        self._others: dict[bool, SchemaPlace] = {}
        self._elements: dict[int, SchemaPlace] = {}
        self._longest = max((len(subschema.elements) for subschema in self.applied), default=0)
        # What is filled in where it was left out.
        self.defaults = list(self._found_defaults()) if is_certain else []

    def member(self, name: str) -> SchemaPlace:
        if self._named is not None and name in self._named:
            return self._named[name]
        has_secret_name = is_secret(name)
        if self._named is None:
            return self._at(self._of_member(name), has_secret_name=has_secret_name)
        if any(name in one.members for one in self.applied):
            found = self._named[name] = self._at(self._of_member(name), has_secret_name=has_secret_name)
            return found
        # What no subschema names is all alike, but for what its name says.
        if has_secret_name not in self._others:
            self._others[has_secret_name] = self._at(self._of_member(name), has_secret_name=has_secret_name)
        return self._others[has_secret_name]

    def element(self, index: int) -> SchemaPlace:
        kind = self.kind_of(index)
        if kind not in self._elements:
            begun = (one for by in self.applied for one in by.of_element(kind, is_certain=self._is_certain))
            self._elements[kind] = self._at(begun)
        return self._elements[kind]

    def kind_of(self, index: int) -> int:
        return min(index, self._longest)

    def all_inside(self) -> Iterator[SchemaPlace]:
        """Every place inside that a subschema speaks of."""
        for name in {name for subschema in self.applied for name in subschema.members}:
            yield self._at(self._of_member(name), has_secret_name=is_secret(name))
        for subschema in self.applied:
            for _, found in subschema.patterns:
                yield self._at([found])
        yield self._at(one for subschema in self.applied for one in subschema.inside.values())
        for index in range(self._longest):
            yield self._at(one for subschema in self.applied for one in subschema.of_element(index))

    def _of_member(self, name: str) -> Iterator[Subschema]:
        return (one for by in self.applied for one in by.of_member(name, is_certain=self._is_certain))

    def _at(self, begun: Iterable[Subschema], *, has_secret_name: bool = False) -> SchemaPlace:
        # In their order: of two defaults the first one counts.
        begun = tuple({id(one): one for one in begun}.values())
        key = tuple(map(id, begun)), has_secret_name
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = SchemaPlace(begun, has_secret_name=has_secret_name, is_certain=self._is_certain, known=self._known)
            self._known[key] = found
        return found

    def _found_defaults(self) -> Iterator[tuple[str, Any, int]]:
        met = set()
        for subschema in self.applied:
            for name, inner in subschema.members.items():
                if name not in met and (default := _default(inner)) is not NO_DEFAULT:
                    met.add(name)
                    yield name, default, len(name) + len(write(default))


class FilledTooLarge(Exception):
    """The defaults of what was left out would make a configuration larger than a body may be."""


def filled(value: Any, place: SchemaPlace) -> Any:
    """Return the value with the defaults of what was left out; the value itself is not altered.

    The place is a certain one: only what applies whatever stands there fills, properties, items and the like, by `$ref`
    and `allOf` too. Raises `FilledTooLarge`.
    """
    return _filled(value, place, [MAX_BODY_BYTES])


def _filled(value: Any, place: SchemaPlace, left: list[int]) -> Any:
    if not place.applied:
        return value
    if isinstance(value, dict):
        whole = dict(value)
        for name, default, size_bytes in place.defaults:
            if name not in whole:
                whole[name] = default
                left[0] -= size_bytes
                if left[0] < 0:
                    raise FilledTooLarge
        return {name: _filled(inner, place.member(name), left) for name, inner in whole.items()}
    if isinstance(value, list):
        return [_filled(inner, place.element(index), left) for index, inner in enumerate(value)]
    return value


def _default(subschema: Subschema) -> Any:
    for one in _all_at_one_place(iter((subschema,)), is_certain=True):
        if one.default is not NO_DEFAULT:
            return one.default
    return NO_DEFAULT


def _all_at_one_place(begun: Iterator[Subschema], *, is_certain: bool = False) -> Iterator[Subschema]:
    """Each subschema that applies to one place, once, with all that it applies there in turn."""
    met: set[int] = set()
    waiting = list(begun)
    while waiting:
        subschema = waiting.pop(0)
        if id(subschema) not in met:
            met.add(id(subschema))
            yield subschema
            waiting.extend(subschema.always if is_certain else subschema.same)
