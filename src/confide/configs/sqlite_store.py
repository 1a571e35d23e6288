"""Saves and the change log on SQLite."""

from __future__ import annotations

from confide.audit.model import AuditEntry
from confide.changes.model import Change, LogBounds, Position
from confide.configs.model import IdempotencyKeyTaken, IdempotencyRecord, NewVersion
from confide.configs.store import APPEND, KEEP_REPLAY, ConfigStore, replay_args, saved_args
from confide.database.engine import Statement, Transaction, UniqueTaken, statement
from confide.database.log import AUDIT, audit_values

CHANGES_AFTER = """/* configs.changes_after */
    SELECT id, kind, tenant, integration_type, version, subject FROM changes
    WHERE id > $1 ORDER BY id LIMIT $2
"""


# The highest number that was ever given, whatever was deleted since.
BOUNDS = """/* configs.bounds */
    SELECT begins_id, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0) FROM store
"""


class SqliteConfigStore(ConfigStore):
    """Versions of configs on SQLite: the log's id is its order, for one writer at a time commits."""

    async def append(self, new: NewVersion, *, entry: AuditEntry, mac: bytes, replay: IdempotencyRecord | None) -> bool:
        try:
            return await self._engine.transact(_append(new, entry, mac=mac, replay=replay))
        except UniqueTaken:
            raise IdempotencyKeyTaken from None

    async def bounds(self) -> LogBounds:
        ((begins, last),) = await self._engine.rows(BOUNDS)
        return LogBounds(Position(0, begins), Position(0, last), Position(0, last))

    async def changes_after(self, position: Position, *, limit: int) -> list[Change]:
        rows = await self._engine.rows(CHANGES_AFTER, position.id, limit)
        return [Change(Position(0, row[0]), *row[1:]) for row in rows]


def _append(new: NewVersion, entry: AuditEntry, *, mac: bytes, replay: IdempotencyRecord | None) -> Transaction[bool]:
    appended = yield Statement(APPEND, saved_args(new))
    if not appended:
        return False
    yield Statement(AUDIT, (*audit_values(entry, mac=mac), appended[0][0]))
    if replay is not None:
        yield statement(KEEP_REPLAY, *replay_args(replay, saved_at=new.saved_at))
    return True
