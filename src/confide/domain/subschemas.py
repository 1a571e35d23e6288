"""Which parts of a JSON Schema (2020-12) apply to a place of a configuration: for defaults, secrets and their price."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from confide.domain.bodies import MAX_BODY_BYTES, write
from confide.domain.masking import Place, is_secret

Matcher = Callable[[str], bool]
Path = tuple[str | int, ...]

NO_DEFAULT: Any = object()


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


class SchemaPlace(Place):
    """A place of a configuration as a schema sees it.

    Secret is what any subschema that can apply there says is `writeOnly`; where none says anything, the name decides.
    """

    __slots__ = ("applied",)

    def __init__(self, begun: Iterator[Subschema], *, name: str | None = None) -> None:
        self.applied = tuple(_all_at_one_place(begun))
        said = {subschema.write_only for subschema in self.applied}
        super().__init__(is_secret=True in said or (False not in said and name is not None and is_secret(name)))

    def member(self, name: str) -> Place:
        return SchemaPlace((one for subschema in self.applied for one in subschema.of_member(name)), name=name)

    def element(self, index: int) -> Place:
        return SchemaPlace(one for subschema in self.applied for one in subschema.of_element(index))

    def kind_of(self, index: int) -> int:
        return min(index, max((len(subschema.elements) for subschema in self.applied), default=0))

    def all_inside(self) -> Iterator[SchemaPlace]:
        """Every place inside that a subschema speaks of."""
        for name in {name for subschema in self.applied for name in subschema.members}:
            yield SchemaPlace((one for subschema in self.applied for one in subschema.of_member(name)), name=name)
        yield SchemaPlace(one for subschema in self.applied for one in subschema.inside.values())
        for index in range(max((len(subschema.elements) for subschema in self.applied), default=0)):
            yield SchemaPlace(one for subschema in self.applied for one in subschema.of_element(index))


class FilledTooLarge(Exception):  # noqa: N818 - a signal to the schema
    """The defaults of what was left out would make a configuration larger than a body may be."""


def filled(value: Any, subschema: Subschema) -> Any:
    """Return the value with the defaults of what was left out; the value itself is not altered.

    Only what applies whatever stands there fills: properties, items and the like, by `$ref` and `allOf` too. Raises
    `FilledTooLarge`.
    """
    return _filled(value, (subschema,), [MAX_BODY_BYTES])


def _filled(value: Any, begun: tuple[Subschema, ...], left: list[int]) -> Any:
    if isinstance(value, dict):
        applied = list(_all_at_one_place(iter(begun), is_certain=True))
        whole = dict(value)
        for subschema in applied:
            for name, inner in subschema.members.items():
                if name not in whole and (default := _default(inner)) is not NO_DEFAULT:
                    whole[name] = default
                    left[0] -= len(name) + len(write(default))
                    if left[0] < 0:
                        raise FilledTooLarge
        return {
            name: _filled(inner, tuple(one for by in applied for one in by.of_member(name, is_certain=True)), left)
            for name, inner in whole.items()
        }
    if isinstance(value, list):
        applied = list(_all_at_one_place(iter(begun), is_certain=True))
        longest = max((len(by.elements) for by in applied), default=0)
        alike = [
            tuple(one for by in applied for one in by.of_element(index, is_certain=True))
            for index in range(longest + 1)
        ]
        return [_filled(inner, alike[min(index, longest)], left) for index, inner in enumerate(value)]
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
