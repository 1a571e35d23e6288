"""Compare two configurations by JSON Pointer (RFC 6901)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confide.strict_json import Json, are_equal, format_pointer

if TYPE_CHECKING:
    from confide.integration_types.masking import SecretPlace

Path = tuple[str | int, ...]


def diff(before: Json, after: Json, *, hidden: SecretPlace | None = None) -> Json:
    """Return `{"added": {pointer: value}, "changed": {pointer: {"from", "to"}}, "removed": {pointer: value}}`.

    Objects are compared member by member, everything else as one value. With `hidden`, a secret is one value too and
    appears as the mask: a viewer may see that it changed, but not how.
    """
    changes: dict[str, Json] = {"added": {}, "changed": {}, "removed": {}}
    _compare(before, after, (), changes, hidden=hidden)
    return changes


def _compare(before: Json, after: Json, path: Path, changes: dict[str, Json], *, hidden: SecretPlace | None) -> None:
    # The order is fixed, so that equal configurations give equal bytes.
    for member in [*before, *(member for member in after if member not in before)]:
        where, place = (*path, member), hidden and hidden.member(member)
        if member not in after:
            changes["removed"][format_pointer(where)] = _show(before[member], place)
        elif member not in before:
            changes["added"][format_pointer(where)] = _show(after[member], place)
        else:
            one, other = before[member], after[member]
            if isinstance(one, dict) and isinstance(other, dict) and not (place and place.is_secret):
                _compare(one, other, where, changes, hidden=place)
            elif not are_equal(one, other):
                changes["changed"][format_pointer(where)] = {"from": _show(one, place), "to": _show(other, place)}


def _show(value: Any, place: SecretPlace | None) -> Any:
    return value if place is None else place.mask(value)
