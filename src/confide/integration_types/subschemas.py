"""Find the subschemas that apply to a place of a configuration, which decide its defaults and secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from confide.integration_types.keyword_work import NO_WORK
from confide.integration_types.masking import RULES, Path, SecretPlace, SecretRules
from confide.slices import iterate, pause_if_due
from confide.strict_json import MAX_BODY_BYTES, MAX_LEVELS, write

Matcher = Callable[[str], bool]

NO_DEFAULT: Any = object()
# The number of cached places of a schema. Recursion and patterns can produce any number of places.
MAX_CACHED_PLACES = 4_096
# The members that hold the value of an object with a secret name.
_VALUE_MEMBERS = frozenset({"content", "data", "key", "plain", "raw", "string", "text", "value"})


class Subschema:
    """One subschema and the subschemas that it applies to the same place and to the places inside it."""

    __slots__ = (
        "always",
        "default",
        "elements",
        "has_broken_default",
        "inside",
        "is_secret",
        "members",
        "path",
        "patterns",
        "same",
        "secrecy_keyword",
        "work",
        "write_only",
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        # The subschemas for the same place: all, and those that apply to every value.
        self.same: list[Subschema] = []
        self.always: list[Subschema] = []
        self.members: dict[str, Subschema] = {}
        self.patterns: list[tuple[Matcher, Subschema]] = []
        self.elements: list[Subschema] = []
        self.inside: dict[str, Subschema] = {}
        # The value of `writeOnly`, and whether the subschema says by any keyword that the value is secret or not.
        self.write_only: bool | None = None
        self.is_secret: bool | None = None
        self.secrecy_keyword = ""
        self.default = NO_DEFAULT
        # What the keywords cost the validator.
        self.work = NO_WORK
        # The default violates its own schema, so that a read does not fill it in.
        self.has_broken_default = False

    def find_for_member(self, name: str, *, is_certain: bool = False) -> Iterator[Subschema]:
        """Yield the subschemas that can apply to a member. With `is_certain`, yield those that apply to every value."""
        is_described = name in self.members
        if is_described:
            yield self.members[name]
        for matches, subschema in self.patterns:
            if matches(name):
                is_described = True
                yield subschema
        if not is_described and "additionalProperties" in self.inside:
            yield self.inside["additionalProperties"]
        if not is_certain and "unevaluatedProperties" in self.inside:
            yield self.inside["unevaluatedProperties"]

    def find_for_element(self, index: int, *, is_certain: bool = False) -> Iterator[Subschema]:
        if index < len(self.elements):
            yield self.elements[index]
        elif "items" in self.inside:
            yield self.inside["items"]
        for keyword in ("contains", "unevaluatedItems"):
            if not is_certain and keyword in self.inside:
                yield self.inside[keyword]


PlaceCache = dict[tuple[tuple[int, ...], bool, bool], "SchemaPlace"]


class SchemaPlace(SecretPlace):
    """A place of a configuration with the subschemas that apply. Places with the same subschemas share one object.

    The value is secret if a subschema that can apply says so. If none says anything, the name decides. A schema that
    describes members of an object with a secret name decides about those members; all other members are secret.
    Places are cached for the next configuration. With `is_certain`, only subschemas that apply to every value count.
    """

    __slots__ = (
        "_elements",
        "_is_certain",
        "_known",
        "_longest",
        "_named",
        "_others",
        "applied",
        "defaults",
        "is_inside_secret_name",
        "subschemas",
    )

    def __init__(
        self,
        subschemas: Iterable[Subschema],
        *,
        has_secret_name: bool = False,
        is_inside_secret_name: bool = False,
        is_certain: bool = False,
        rules: SecretRules = RULES,
        known: PlaceCache | None = None,
    ) -> None:
        # The subschemas of the place itself. `applied` also has those that they apply in turn.
        self.subschemas = tuple(subschemas)
        self.applied = tuple(_expand(iter(self.subschemas), is_certain=is_certain))
        flags = {one.write_only if rules.is_previous else one.is_secret for one in self.applied}
        is_visible = True not in flags and False in flags
        is_secret_by_name = has_secret_name and not is_visible
        has_members = not rules.is_previous and any(one.members for one in self.applied)
        super().__init__(
            is_secret=True in flags or (is_secret_by_name and not has_members),
            is_secret_unless_object=is_secret_by_name and has_members,
            is_visible=is_visible,
            rules=rules,
        )
        # Members that the schema does not describe are secret.
        self.is_inside_secret_name = not is_visible and (is_inside_secret_name or self.is_secret_unless_object)
        self._is_certain = is_certain
        # The cache of places, by the subschemas that apply.
        self._known = {} if known is None else known
        # None if there are patterns, because a pattern can match any name.
        self._named: dict[str, SchemaPlace] | None = None if any(one.patterns for one in self.applied) else {}
        self._others: dict[bool, SchemaPlace] = {}
        self._elements: dict[int, SchemaPlace] = {}
        self._longest = max((len(subschema.elements) for subschema in self.applied), default=0)
        # The defaults of missing members.
        self.defaults = list(self._find_defaults()) if is_certain else []

    @property
    def is_secret_by_keyword(self) -> bool:
        return any(one.is_secret for one in self.applied)

    def get_member(self, name: str) -> SchemaPlace:
        if self._named is not None and name in self._named:
            return self._named[name]
        is_described = any(name in one.members for one in self.applied)
        has_secret_name = self._has_secret_name(name, is_described=is_described)
        if self._named is None:
            # Each pattern is matched.
            pause_if_due()
            return self._get_place(self._find_for_member(name), has_secret_name=has_secret_name)
        if is_described:
            found = self._named[name] = self._get_place(self._find_for_member(name), has_secret_name=has_secret_name)
            return found
        # All other members differ only in whether their name is secret.
        if has_secret_name not in self._others:
            self._others[has_secret_name] = self._get_place(
                self._find_for_member(name), has_secret_name=has_secret_name
            )
        return self._others[has_secret_name]

    def get_element(self, index: int) -> SchemaPlace:
        kind = self.get_element_kind(index)
        if kind not in self._elements:
            subschemas = (
                one for applied in self.applied for one in applied.find_for_element(kind, is_certain=self._is_certain)
            )
            self._elements[kind] = self._get_place(subschemas)
        return self._elements[kind]

    def get_element_kind(self, index: int) -> int:
        return min(index, self._longest)

    def list_places_inside(self) -> Iterator[SchemaPlace]:
        """Yield every place inside that a subschema describes."""
        for name in {name for subschema in self.applied for name in subschema.members}:
            has_secret_name = self._has_secret_name(name, is_described=True)
            yield self._get_place(self._find_for_member(name), has_secret_name=has_secret_name)
        for subschema in self.applied:
            for _, found in subschema.patterns:
                yield self._get_place([found], has_secret_name=self.is_inside_secret_name)
        inside = (one for subschema in self.applied for one in subschema.inside.values())
        yield self._get_place(inside, has_secret_name=self.is_inside_secret_name)
        for index in range(self._longest):
            yield self._get_place(one for subschema in self.applied for one in subschema.find_for_element(index))

    def _has_secret_name(self, name: str, *, is_described: bool) -> bool:
        if self.is_inside_secret_name and (not is_described or name.lower() in _VALUE_MEMBERS):
            return True
        return self.rules.is_secret_name(name)

    def _find_for_member(self, name: str) -> Iterator[Subschema]:
        return (one for applied in self.applied for one in applied.find_for_member(name, is_certain=self._is_certain))

    def _get_place(self, subschemas: Iterable[Subschema], *, has_secret_name: bool = False) -> SchemaPlace:
        # The order matters: the first of two defaults counts.
        subschemas = tuple({id(one): one for one in subschemas}.values())
        key = tuple(map(id, subschemas)), has_secret_name, self.is_inside_secret_name
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MAX_CACHED_PLACES:
                self._known.clear()
            found = SchemaPlace(
                subschemas,
                has_secret_name=has_secret_name,
                is_inside_secret_name=self.is_inside_secret_name,
                is_certain=self._is_certain,
                rules=self.rules,
                known=self._known,
            )
            self._known[key] = found
        return found

    def _find_defaults(self) -> Iterator[tuple[str, Any, int]]:
        seen = set()
        for subschema in self.applied:
            for name, inner in subschema.members.items():
                if name not in seen and (default := _find_default(inner)) is not NO_DEFAULT:
                    seen.add(name)
                    yield name, default, len(name) + len(write(default))


class FilledTooLarge(Exception):
    """The defaults of missing members would make a configuration larger, or more deeply nested, than a body can be."""


def fill_defaults(value: Any, place: SchemaPlace) -> Any:
    """Return a copy of the value with the defaults of missing members.

    `place` must be built with `is_certain`, so that only subschemas fill that apply to any value: properties, items
    and the like, also by `$ref` and `allOf`. Raises `FilledTooLarge`.
    """
    return _fill(value, place, [MAX_BODY_BYTES], levels=MAX_LEVELS)


def _fill(value: Any, place: SchemaPlace, left: list[int], *, levels: int) -> Any:
    if not place.applied or not isinstance(value, dict | list):
        return value
    if not levels:
        raise FilledTooLarge
    pause_if_due()
    if isinstance(value, dict):
        whole = dict(value)
        for name, default, size_bytes in place.defaults:
            if name not in whole:
                whole[name] = default
                left[0] -= size_bytes
                if left[0] < 0:
                    raise FilledTooLarge
        return {name: _fill(inner, place.get_member(name), left, levels=levels - 1) for name, inner in whole.items()}
    return [
        _fill(inner, place.get_element(index), left, levels=levels - 1) for index, inner in enumerate(iterate(value))
    ]


def _find_default(subschema: Subschema) -> Any:
    for one in _expand(iter((subschema,)), is_certain=True):
        if one.default is not NO_DEFAULT and not one.has_broken_default:
            return one.default
    return NO_DEFAULT


def _expand(subschemas: Iterator[Subschema], *, is_certain: bool = False) -> Iterator[Subschema]:
    """Yield each subschema that applies to one place once, including those that others apply in turn."""
    seen: set[int] = set()
    pending = list(subschemas)
    while pending:
        subschema = pending.pop(0)
        if id(subschema) not in seen:
            seen.add(id(subschema))
            yield subschema
            pending.extend(subschema.always if is_certain else subschema.same)
