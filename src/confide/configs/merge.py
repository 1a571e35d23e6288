"""Merge a change into a configuration (RFC 7396)."""

from __future__ import annotations

from confide.slices import pause_if_due
from confide.strict_json import Json


def merge(target: Json, change: Json) -> Json:
    """Return the target with a change merged in: objects merge, null removes a member, any other value replaces it.

    Leaves both arguments as they are. Follows the algorithm of RFC 7396, section 2.
    """
    pause_if_due()
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
