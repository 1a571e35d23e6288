"""Time as people write it: stretches (500ms, 30s, 10m, 2h, 1d) and moments (RFC 3339)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

DURATION_EXAMPLES = "500ms, 30s, 10m, 2h or 1d"
TIME_EXAMPLE = "2026-11-24T09:15:00Z"
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, None: 1.0}
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration(text: str, *, may_be_zero: bool = False) -> float:
    """The span in seconds, which a number alone counts; raises `ValueError` for what is none."""
    found = _SPAN.fullmatch(text.strip())
    if found is None or not (float(found[1]) or may_be_zero):
        raise ValueError(f"{text!r} is not a span such as {DURATION_EXAMPLES}.")
    return float(found[1]) * _SECONDS[found[2]]


def parse_time(text: str) -> int:
    """A moment with its zone, in whole microseconds since 1970; raises `ValueError` for what is none."""
    try:
        moment = datetime.fromisoformat(text.upper()) if _MOMENT.fullmatch(text) else None
    except ValueError:
        moment = None
    if moment is None or moment < _BEGIN:
        raise ValueError(f"{text!r} is no time with its zone, such as {TIME_EXAMPLE}.")
    return (moment - _BEGIN) // timedelta(microseconds=1)
