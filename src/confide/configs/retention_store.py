"""What is erased after its time, and whose turn it is to do so; nearly the same words on both engines."""

from __future__ import annotations

from confide.changes.model import Position
from confide.database.engine import Engine, Transaction, statement
from confide.names import Key

TAKE_TURN = """/* upkeep.take_turn */
    INSERT INTO turns (name, until) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET until = excluded.until WHERE turns.until <= $3 RETURNING name
"""
DEPTHS = """/* upkeep.depths */
    SELECT tenant, integration_type, max(version) FROM changes
    WHERE (tenant, integration_type) > ($1, $2) GROUP BY tenant, integration_type
    ORDER BY tenant, integration_type LIMIT $3
"""
PRUNE = """/* upkeep.prune */
    UPDATE changes SET body = NULL
    WHERE id IN (
        SELECT id FROM changes
        WHERE tenant = $1 AND integration_type = $2 AND version > $3 AND version <= $4 AND body IS NOT NULL
        ORDER BY version LIMIT $5
    )
    RETURNING version
"""
OLD = "/* upkeep.old */ SELECT id FROM changes WHERE id > $1 AND saved_at < $2 ORDER BY id LIMIT $3"
# A config's latest row stays, be it a tombstone: numbers never restart.
TRIM = """/* upkeep.trim */
    DELETE FROM changes AS c
    WHERE c.id > $1 AND c.id <= $2 AND c.saved_at < $3 AND (c.tenant IS NULL OR c.version IS NULL
        OR EXISTS (SELECT 1 FROM changes n WHERE n.tenant = c.tenant AND n.integration_type = c.integration_type
                   AND n.version > c.version))
    RETURNING {xid}, id
"""
BEGINS = """/* upkeep.begins */
    UPDATE store SET begins_xid = $1, begins_id = $2 WHERE (begins_xid, begins_id) < ($1, $2)
"""


class RetentionStore:
    """Retention of versions and of the log."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._xid = "xid::text::bigint" if engine.name == "postgres" else "0"

    async def take_turn(self, name: str, *, now: int, until: int) -> bool:
        return await self._engine.transact(_take_turn(name, now, until))

    async def depths(self, *, after: Key | None, limit: int) -> list[tuple[Key, int]]:
        rows = await self._engine.rows(DEPTHS, *(after or ("", "")), limit)
        return [(Key(tenant, type_), version) for tenant, type_, version in rows]

    async def prune(self, key: Key, *, after: int, until: int, limit: int) -> list[int]:
        return await self._engine.transact(_prune(key, after, until, limit))

    async def trim(self, *, before: int, after: int, limit: int) -> int | None:
        return await self._engine.transact(_trim(TRIM.format(xid=self._xid), before, after, limit))


def _take_turn(name: str, now: int, until: int) -> Transaction[bool]:
    return bool((yield statement(TAKE_TURN, name, until, now)))


def _prune(key: Key, after: int, until: int, limit: int) -> Transaction[list[int]]:
    return sorted(version for (version,) in (yield statement(PRUNE, *key, after, until, limit)))


def _trim(sql: str, before: int, after: int, limit: int) -> Transaction[int | None]:
    old = yield statement(OLD, after, before, limit)
    if not old:
        return None
    last: int = old[-1][0]
    gone = yield statement(sql, after, last, before)
    if gone:
        yield statement(BEGINS, *max(Position(*row) for row in gone))
    return last
