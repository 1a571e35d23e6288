"""Parse durations (500ms, 30s, 10m, 2h, 1d) and times (RFC 3339), and format times for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

DURATION_EXAMPLES = "500ms, 30s, 10m, 2h or 1d"
TIME_EXAMPLE = "2026-11-24T09:15:00Z"
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)
_SECONDS_PER_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, None: 1.0}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration(text: str, *, is_zero_allowed: bool = False) -> float:
    """Return a duration in seconds. A number without a unit counts seconds. Raises `ValueError` for other texts."""
    parts = _DURATION.fullmatch(text.strip())
    if parts is None or not (float(parts[1]) or is_zero_allowed):
        raise ValueError(f"{text!r} is not a duration. Write it like {DURATION_EXAMPLES}.")
    return float(parts[1]) * _SECONDS_PER_UNIT[parts[2]]


def parse_time(text: str) -> int:
    """Return a time with a zone as microseconds since 1970. Raises `ValueError` for other texts."""
    try:
        time = datetime.fromisoformat(text.upper()) if _TIME.fullmatch(text) else None
    except ValueError:
        time = None
    if time is None or time < _EPOCH:
        raise ValueError(f"{text!r} is not a time with a zone. Write it like {TIME_EXAMPLE}.")
    return (time - _EPOCH) // timedelta(microseconds=1)


def format_time(microseconds: int) -> str:
    """Format microseconds since 1970 as a date and a time."""
    return f"{datetime.fromtimestamp(microseconds // 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
