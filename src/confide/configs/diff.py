"""What changed between two configurations, by JSON Pointer (RFC 6901)."""

from __future__ import annotations

from confide.integration_types.masking import SHOWN, Place, masked
from confide.strict_json import Json, are_equal, pointer

Path = tuple[str | int, ...]


def diff(before: Json, after: Json, *, hidden: Place = SHOWN) -> Json:
    """Return `{"added": {pointer: value}, "changed": {pointer: {"from", "to"}}, "removed": {pointer: value}}`.

    Objects are walked, everything else is one value. With the places that are `hidden`, a secret is one value too,
    whatever it holds, and shown as the mask: that it changed may be known, never how.
    """
    found: dict[str, Json] = {"added": {}, "changed": {}, "removed": {}}
    _walk(before, after, (), found, hidden=hidden)
    return found


def _walk(before: Json, after: Json, path: Path, found: dict[str, Json], *, hidden: Place) -> None:
    # In order of what was there and then of what came: the same bytes whoever makes it.
    for member in [*before, *(member for member in after if member not in before)]:
        where, place = (*path, member), hidden.member(member)
        if member not in after:
            found["removed"][pointer(where)] = masked(before[member], place)
        elif member not in before:
            found["added"][pointer(where)] = masked(after[member], place)
        else:
            one, other = before[member], after[member]
            if isinstance(one, dict) and isinstance(other, dict) and not place.is_secret:
                _walk(one, other, where, found, hidden=place)
            elif not are_equal(one, other):
                found["changed"][pointer(where)] = {"from": masked(one, place), "to": masked(other, place)}
