"""News on SQLite: the file says cheaply whether anybody has committed, so it is asked often."""

from __future__ import annotations

import asyncio

import apsw

from confide.changes.model import Change, ChangeFeedReset, Position
from confide.database.sqlite.engine import SqliteEngine
from confide.errors import DatabaseUnavailable

ASK_SECONDS = 0.05
# Who has missed more than that forgets everything: that is sooner done than hearing of it all.
MAX_CHANGES = 20_000

LAST = "/* news.last */ SELECT (SELECT epoch FROM store), (SELECT coalesce(max(id), 0) FROM changes)"
SINCE = """/* news.since */
    SELECT id, kind, tenant, integration_type, version, subject FROM changes
    WHERE id > $1 ORDER BY id LIMIT $2
"""


class SqliteChangeFeed:
    """Commits are in order of id, one writer at a time: what is above the last id is what is new."""

    def __init__(self, engine: SqliteEngine) -> None:
        self._engine = engine
        self._data_version: int | None = None
        self._epoch = ""
        self._last = 0

    async def read(self) -> list[Change]:
        # Asked before the log is read: a commit in between is met again at the next read.
        data_version = self._asked()
        if data_version == self._data_version:
            return []
        ((epoch, last),) = await self._engine.query(LAST)
        is_first = self._data_version is None
        if is_first or epoch != self._epoch or last < self._last:
            self._data_version, self._epoch, self._last = data_version, epoch, last
            if is_first:
                return []
            raise ChangeFeedReset
        rows = await self._engine.query(SINCE, self._last, MAX_CHANGES + 1)
        self._data_version = data_version
        if len(rows) > MAX_CHANGES:
            self._last = last
            raise ChangeFeedReset
        changes = [Change(Position(0, row[0]), *row[1:]) for row in rows]
        if changes:
            self._last = changes[-1].position.id
        return changes

    async def wait(self) -> None:
        await asyncio.sleep(ASK_SECONDS)

    def watermark_age(self) -> float:
        """Nothing holds back what has one writer: commits are the order."""
        return 0.0

    def notify(self) -> None:
        """Nothing to do: the file tells everybody who asks."""

    async def close(self) -> None:
        """Nothing to do: the engine owns the connection."""

    def _asked(self) -> int:
        try:
            return int(self._engine.reader.pragma("data_version"))
        except apsw.Error as error:
            raise DatabaseUnavailable(str(error)) from error
