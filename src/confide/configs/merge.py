"""Merging a partial change into what is there, as RFC 7396 says."""

from __future__ import annotations

from confide.strict_json import Json


def merge(target: Json, change: Json) -> Json:
    """Return the target with the change merged in: objects merge, null removes, the rest replaces.

    Neither argument is altered. Follows the algorithm of RFC 7396, section 2.
    """
    merged = dict(target)
    for member, value in change.items():
        if value is None:
            merged.pop(member, None)
        elif isinstance(value, dict):
            inner = merged.get(member)
            merged[member] = merge(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[member] = value
    return merged
