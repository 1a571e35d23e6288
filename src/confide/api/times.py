"""Times as they are shown: RFC 3339 in UTC, from the store's microseconds."""

from __future__ import annotations

from datetime import UTC, datetime

from confide.ports import SECOND


def written(microseconds: int) -> str:
    moment = datetime.fromtimestamp(microseconds / SECOND, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
