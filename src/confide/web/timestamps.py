"""Times as people and programs read and write them: RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime

from confide.clock import SECOND
from confide.time_formats import MOMENT, read_moment
from confide.web.errors import MalformedParameter


def written(microseconds: int) -> str:
    """Write a time to the millisecond."""
    try:
        moment = datetime.fromtimestamp(microseconds / SECOND, UTC)
    except (OverflowError, ValueError, OSError):
        # Only somebody who writes to the store can make it so: the audit says that it was altered.
        moment = datetime.max.replace(tzinfo=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(name: str, text: str | None) -> int | None:
    """Read a parameter that is a time with its zone, in microseconds since 1970."""
    if text is None:
        return None
    try:
        return read_moment(text)
    except ValueError:
        raise MalformedParameter(f"The parameter {name} is a time with its zone, such as {MOMENT}.") from None
