"""The change feed on SQLite. It polls `data_version`, a cheap check for commits of other connections."""

from __future__ import annotations

import asyncio

import apsw

from confide.changes.model import Change, ChangeFeedReset, Position
from confide.database.sqlite.engine import SqliteEngine
from confide.epoch import UNKNOWN_EPOCH, CurrentEpoch, Epoch
from confide.errors import DatabaseUnavailable, describe_error

POLL_SECONDS = 0.05
# Above this number, clearing the caches is faster than applying the changes.
MAX_CHANGES = 20_000

LAST = "/* news.last */ SELECT epoch, epoch_number, (SELECT coalesce(max(id), 0) FROM changes) FROM store"
SINCE = """/* news.since */
    SELECT id, kind, tenant, integration_type, version, subject FROM changes
    WHERE id > $1 ORDER BY id LIMIT $2
"""


class SqliteChangeFeed:
    """Reads changes above the last row ID. One writer commits at a time, so row IDs are in commit order."""

    def __init__(self, engine: SqliteEngine, epoch: CurrentEpoch) -> None:
        self._engine = engine
        self.connection_number = 1
        self._current_epoch = epoch
        self._data_version: int | None = None
        self._epoch = UNKNOWN_EPOCH
        self._last_id = 0

    async def read(self) -> list[Change]:
        # Read before the change log, so that a commit in between is found by the next read.
        data_version = self._read_data_version()
        if data_version == self._data_version:
            return []
        ((*found, last_id),) = await self._engine.query(LAST)
        epoch = Epoch(*found)
        self._current_epoch.adopt(epoch)
        is_first = self._data_version is None
        if is_first or epoch != self._epoch or last_id < self._last_id:
            self._data_version, self._epoch, self._last_id = data_version, epoch, last_id
            if is_first:
                return []
            raise ChangeFeedReset
        rows = await self._engine.query(SINCE, self._last_id, MAX_CHANGES + 1)
        self._data_version = data_version
        if len(rows) > MAX_CHANGES:
            self._last_id = last_id
            raise ChangeFeedReset
        changes = [Change(Position(0, row[0]), *row[1:]) for row in rows]
        if changes:
            self._last_id = changes[-1].position.id
        return changes

    async def wait(self) -> None:
        await asyncio.sleep(POLL_SECONDS)

    def compute_watermark_age_seconds(self) -> float:
        """Return 0: with one writer, no transaction delays another."""
        return 0.0

    def notify(self) -> None:
        """Do nothing. Other processes poll the file."""

    async def close(self) -> None:
        """Do nothing. The engine owns the connection."""

    def _read_data_version(self) -> int:
        try:
            return int(self._engine.reader.pragma("data_version"))
        except apsw.Error as error:
            raise DatabaseUnavailable(describe_error(error)) from error
