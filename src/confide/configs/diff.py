"""Compare two configurations by JSON Pointer (RFC 6901)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confide.slices import pause_if_due
from confide.strict_json import Json, format_pointer, is_equal

if TYPE_CHECKING:
    from confide.integration_types.masking import SecretPlace

Path = tuple[str | int, ...]

# Long names deep inside an object can make the pointers many times larger than the object.
MAX_POINTER_CHARACTERS = 1024 * 1024


def diff(before: Json, after: Json, *, secrets: SecretPlace | None = None) -> Json:
    """Return `{"added": {pointer: value}, "changed": {pointer: {"from", "to"}}, "removed": {pointer: value}}`.

    Compares objects member by member and any other value as a whole, and an object too when the pointers have become
    too large. `secrets` is the root of the places to mask: a
    viewer sees that a secret changed, but not how.
    """
    comparison = _Comparison()
    comparison.compare(before, after, (), place=secrets)
    return comparison.changes


class _Comparison:
    """The changes found so far."""

    def __init__(self) -> None:
        self.changes: dict[str, Json] = {"added": {}, "changed": {}, "removed": {}}
        self._left = MAX_POINTER_CHARACTERS

    def compare(self, before: Json, after: Json, path: Path, *, place: SecretPlace | None) -> None:
        pause_if_due()
        # The order is fixed, so that equal configurations give equal bytes.
        for member in [*before, *(member for member in after if member not in before)]:
            inner_path, inner = (*path, member), place and place.get_member_of(member, before, after)
            if member not in after:
                self._add("removed", inner_path, _mask(before[member], inner))
            elif member not in before:
                self._add("added", inner_path, _mask(after[member], inner))
            else:
                self._compare_values(before[member], after[member], inner_path, place=inner)

    def _compare_values(self, old: Any, new: Any, path: Path, *, place: SecretPlace | None) -> None:
        has_objects = isinstance(old, dict) and isinstance(new, dict) and not (place and place.is_secret)
        if has_objects and len(format_pointer(path)) * (len(old) + len(new)) <= self._left:
            self.compare(old, new, path, place=place)
        elif not is_equal(old, new):
            self._add("changed", path, {"from": _mask(old, place), "to": _mask(new, place)})

    def _add(self, kind: str, path: Path, value: Any) -> None:
        pointer = format_pointer(path)
        self._left -= len(pointer)
        self.changes[kind][pointer] = value


def _mask(value: Any, place: SecretPlace | None) -> Any:
    return value if place is None else place.mask(value)
