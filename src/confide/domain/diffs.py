"""What changed between two configurations, by JSON Pointer (RFC 6901)."""

from __future__ import annotations

from typing import Any

from confide.domain import masking
from confide.domain.bodies import Json, are_equal, pointer

Path = tuple[str | int, ...]


def diff(before: Json, after: Json, *, is_masked: bool) -> Json:
    """Return `{"added": {pointer: value}, "changed": {pointer: {"from", "to"}}, "removed": {pointer: value}}`.

    Objects are walked, everything else is one value. Masked, a secret is one value too, whatever it holds, and shown
    as the mask: that it changed may be known, never how.
    """
    found: dict[str, Json] = {"added": {}, "changed": {}, "removed": {}}
    _walk(before, after, (), found, is_masked=is_masked)
    return found


def _walk(before: Json, after: Json, path: Path, found: dict[str, Json], *, is_masked: bool) -> None:
    # In order of what was there and then of what came: the same bytes whoever makes it.
    for member in [*before, *(member for member in after if member not in before)]:
        where = (*path, member)
        hides = is_masked and masking.is_secret(member)
        if member not in after:
            found["removed"][pointer(where)] = _shown(before[member], hides=hides, is_masked=is_masked)
        elif member not in before:
            found["added"][pointer(where)] = _shown(after[member], hides=hides, is_masked=is_masked)
        else:
            one, other = before[member], after[member]
            if isinstance(one, dict) and isinstance(other, dict) and not hides:
                _walk(one, other, where, found, is_masked=is_masked)
            elif not are_equal(one, other):
                shown = [_shown(value, hides=hides, is_masked=is_masked) for value in (one, other)]
                found["changed"][pointer(where)] = {"from": shown[0], "to": shown[1]}


def _shown(value: Any, *, hides: bool, is_masked: bool) -> Any:
    if hides:
        return masking.MASK
    return masking.masked(value) if is_masked else value
