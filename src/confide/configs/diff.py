"""Compare two configurations by JSON Pointer (RFC 6901)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confide.strict_json import Json, format_pointer, is_equal

if TYPE_CHECKING:
    from confide.integration_types.masking import SecretPlace

Path = tuple[str | int, ...]


def diff(before: Json, after: Json, *, secrets: SecretPlace | None = None) -> Json:
    """Return `{"added": {pointer: value}, "changed": {pointer: {"from", "to"}}, "removed": {pointer: value}}`.

    Compares objects member by member and any other value as a whole. `secrets` is the root of the places to mask: a
    viewer sees that a secret changed, but not how.
    """
    changes: dict[str, Json] = {"added": {}, "changed": {}, "removed": {}}
    _compare(before, after, (), changes, place=secrets)
    return changes


def _compare(before: Json, after: Json, path: Path, changes: dict[str, Json], *, place: SecretPlace | None) -> None:
    # The order is fixed, so that equal configurations give equal bytes.
    for member in [*before, *(member for member in after if member not in before)]:
        inner_path, inner = (*path, member), place and place.get_member_of(member, before, after)
        if member not in after:
            changes["removed"][format_pointer(inner_path)] = _mask(before[member], inner)
        elif member not in before:
            changes["added"][format_pointer(inner_path)] = _mask(after[member], inner)
        else:
            old, new = before[member], after[member]
            if isinstance(old, dict) and isinstance(new, dict) and not (inner and inner.is_secret):
                _compare(old, new, inner_path, changes, place=inner)
            elif not is_equal(old, new):
                changes["changed"][format_pointer(inner_path)] = {"from": _mask(old, inner), "to": _mask(new, inner)}


def _mask(value: Any, place: SecretPlace | None) -> Any:
    return value if place is None else place.mask(value)
