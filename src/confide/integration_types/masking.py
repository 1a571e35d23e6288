"""Find the secret members of a configuration and mask their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from confide.errors import Violation, limit_pointers
from confide.integration_types.errors import MaskSentBack
from confide.integration_types.secret_names import is_secret_name, was_secret_name
from confide.integration_types.url_secrets import find_secrets, replace_secrets
from confide.slices import iterate, pause_if_due
from confide.strict_json import Json, format_pointer

Path = tuple[str | int, ...]

MASK = "********"
# In an object such as `{"name": "X-API-Key", "value": "…"}`, the name decides whether the value is secret.
_PAIR_NAMES = ("name", "key", "Name", "Key", "NAME", "KEY")
_PAIR_VALUES = frozenset({"value", "Value", "VALUE"})


class SecretRules(NamedTuple):
    """The rules that decide what is secret."""

    is_secret_name: Callable[[str], bool]
    # The previous release knew only names and `writeOnly`: no other keywords, no pairs, no URLs.
    is_previous: bool = False


RULES = SecretRules(is_secret_name)
# For `confide type check`, which lists what the rules of this release mask differently.
PREVIOUS_RULES = SecretRules(was_secret_name, is_previous=True)


class SecretPlace:
    """A place in a configuration: whether its value is secret, and the places inside it.

    This class decides by the names of members. `SchemaPlace` also decides by a schema.
    """

    __slots__ = ("is_secret", "is_secret_unless_object", "is_visible", "rules")

    def __init__(
        self,
        *,
        is_secret: bool = False,
        is_secret_unless_object: bool = False,
        is_visible: bool = False,
        rules: SecretRules = RULES,
    ) -> None:
        self.is_secret = is_secret
        # The name is secret, but a schema describes the members of the object, and so decides about each of them.
        self.is_secret_unless_object = is_secret_unless_object
        # The schema says that the value is not secret.
        self.is_visible = is_visible
        self.rules = rules

    def get_member(self, name: str) -> SecretPlace:
        is_secret = self.rules.is_secret_name(name)
        if self.rules.is_previous:
            return _PREVIOUSLY_SECRET if is_secret else PREVIOUS_PLACE_WITHOUT_SCHEMA
        return _SECRET if is_secret else PLACE_WITHOUT_SCHEMA

    def get_member_of(self, name: str, *objects: Json) -> SecretPlace:
        """Return the place of a member of an object, or of two versions of it. The object can be a pair."""
        inner = self.get_member(name)
        if name in _PAIR_VALUES and not inner.is_visible and any(map(_has_secret_pair_name, objects)):
            return _SECRET
        return inner

    def get_element(self, _index: int) -> SecretPlace:
        return PREVIOUS_PLACE_WITHOUT_SCHEMA if self.rules.is_previous else PLACE_WITHOUT_SCHEMA

    def get_element_kind(self, _index: int) -> int:
        """Return the kind of an element. Elements of the same kind share a place."""
        return 0

    def is_hiding(self, value: Any) -> bool:
        """Return whether the mask replaces the whole value."""
        return self.is_secret or (self.is_secret_unless_object and not isinstance(value, dict))

    def mask(self, value: Any) -> Any:
        return mask(value, self)


PLACE_WITHOUT_SCHEMA = SecretPlace()
_SECRET = SecretPlace(is_secret=True)
PREVIOUS_PLACE_WITHOUT_SCHEMA = SecretPlace(rules=PREVIOUS_RULES)
_PREVIOUSLY_SECRET = SecretPlace(is_secret=True, rules=PREVIOUS_RULES)


def mask(value: Any, place: SecretPlace = PLACE_WITHOUT_SCHEMA) -> Any:
    """Return a copy of the value with the mask in place of each secret of any JSON type."""
    # As `is_hiding`, without a call for each value.
    if place.is_secret or (place.is_secret_unless_object and not isinstance(value, dict)):
        return MASK
    if isinstance(value, dict):
        pause_if_due()
        masked = {member: mask(inner, place.get_member(member)) for member, inner in value.items()}
        if not _PAIR_VALUES.isdisjoint(value):
            for member in _PAIR_VALUES.intersection(value):
                masked[member] = mask(value[member], place.get_member_of(member, value))
        return masked
    if isinstance(value, list):
        pause_if_due()
        places: dict[int, SecretPlace] = {}
        masked_list = []
        for index, inner in enumerate(iterate(value)):
            if (kind := place.get_element_kind(index)) not in places:
                places[kind] = place.get_element(index)
            masked_list.append(mask(inner, places[kind]))
        return masked_list
    if isinstance(value, str) and not place.is_visible and "://" in value:
        return replace_secrets(value, MASK)
    return value


def list_masked_leaves(value: Any, place: SecretPlace) -> Iterator[Path]:
    """Yield the path of each scalar and each empty container that is masked, as a whole or in part."""
    return _list_masked_leaves(value, place, (), is_inside_secret=False)


def has_mask(value: Any) -> bool:
    return any(True for _ in _find_masks(value, ()))


def require_no_mask(configuration: Json) -> None:
    """Raise `MaskSentBack` if a value is the mask. A client must not replace a secret by its mask."""
    places = limit_pointers(map(format_pointer, _find_masks(configuration, ("configuration",))))
    if places:
        raise MaskSentBack(violations=tuple(Violation(p, MaskSentBack.code, MaskSentBack.sentence) for p in places))


def _find_masks(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, str):
        if value == MASK or _has_mask_in_url(value):
            yield path
    elif isinstance(value, dict):
        pause_if_due()
        for member, inner in value.items():
            if isinstance(inner, str | dict | list):
                yield from _find_masks(inner, (*path, member))
    elif isinstance(value, list):
        pause_if_due()
        for index, inner in enumerate(iterate(value)):
            if isinstance(inner, str | dict | list):
                yield from _find_masks(inner, (*path, index))


def _has_mask_in_url(text: str) -> bool:
    # Most texts have no asterisk, encoded or not, which is quick to see.
    return ("*" in text or "%2" in text) and any(unquote(text[start:end]) == MASK for start, end in find_secrets(text))


def _has_secret_pair_name(container: Json) -> bool:
    names = (container.get(member) for member in _PAIR_NAMES)
    return any(isinstance(name, str) and is_secret_name(name) for name in names)


def _list_masked_leaves(value: Any, place: SecretPlace, path: Path, *, is_inside_secret: bool) -> Iterator[Path]:
    pause_if_due()
    is_secret = is_inside_secret or place.is_hiding(value)
    if isinstance(value, dict) and value:
        for member, inner in value.items():
            inner_place = place.get_member(member) if place.rules.is_previous else place.get_member_of(member, value)
            yield from _list_masked_leaves(inner, inner_place, (*path, member), is_inside_secret=is_secret)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _list_masked_leaves(inner, place.get_element(index), (*path, index), is_inside_secret=is_secret)
    elif is_secret or (not place.rules.is_previous and mask(value, place) != value):
        yield path
