"""The SQL of retention: prune versions, trim the change log, and claim background jobs."""

from __future__ import annotations

from typing import NamedTuple

from confide.changes.model import Position
from confide.database.engine import Engine, Transaction, statement
from confide.database.identity import UPDATE_STORE, lock_store, require_believed
from confide.database.signed_rows import RowSigner
from confide.names import ConfigKey


class HighestVersion(NamedTuple):
    """The highest version of a config."""

    key: ConfigKey
    version: int


CLAIM_JOB = """/* upkeep.take_turn */
    INSERT INTO turns (name, until) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET until = excluded.until WHERE turns.until <= $3 RETURNING name
"""
HIGHEST_VERSIONS = """/* upkeep.depths */
    SELECT tenant, integration_type, max(version) FROM changes
    WHERE (tenant, integration_type) > ($1, $2) AND version IS NOT NULL GROUP BY tenant, integration_type
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
# The latest row of a config stays, even a tombstone, so that version numbers never restart.
TRIM = """/* upkeep.trim */
    DELETE FROM changes AS c
    WHERE c.id > $1 AND c.id <= $2 AND c.saved_at < $3 AND (c.tenant IS NULL OR c.version IS NULL
        OR EXISTS (SELECT 1 FROM changes n WHERE n.tenant = c.tenant AND n.integration_type = c.integration_type
                   AND n.version > c.version))
    RETURNING {xid}, id
"""


class RetentionStore:
    """Prunes versions and trims the change log, in small transactions."""

    def __init__(self, engine: Engine, rows: RowSigner) -> None:
        self._engine = engine
        self._rows = rows
        self._trim = TRIM.format(xid="xid::text::bigint" if engine.name == "postgresql" else "0")

    async def claim_job(self, name: str, *, now: int, until: int) -> bool:
        """Claim a background job until a time. Return False if another process has claimed it."""
        return bool(await self._engine.execute(CLAIM_JOB, name, until, now))

    async def list_highest_versions(self, *, after: ConfigKey | None, limit: int) -> list[HighestVersion]:
        """List configs with their highest version, including deleted configs, in order of key."""
        rows = await self._engine.query(HIGHEST_VERSIONS, *(after or ("", "")), limit)
        return [HighestVersion(ConfigKey(tenant, type_), version) for tenant, type_, version in rows]

    async def prune(self, key: ConfigKey, *, after: int, until: int, limit: int) -> list[int]:
        """Erase the bodies of up to `limit` versions above `after`, up to `until`. Return the versions in order."""
        return sorted(version for (version,) in await self._engine.execute(PRUNE, *key, after, until, limit))

    async def trim(self, *, before: int, after: int, limit: int) -> int | None:
        """Examine up to `limit` change rows older than `before`. Delete them, except the latest row of each config.

        Starts after a row ID. Returns the ID to continue after, or None at the end.
        """
        return await self._engine.transact(_trim(self._rows, self._trim, before, after, limit))


def _trim(rows: RowSigner, sql: str, before: int, after: int, limit: int) -> Transaction[int | None]:
    old = yield statement(OLD, after, before, limit)
    if not old:
        return None
    last: int = old[-1][0]
    store = yield from lock_store()
    deleted = yield statement(sql, after, last, before)
    if deleted:
        begin = max(Position(*row) for row in deleted)
        if Position(store.begins_xid, store.begins_id) < begin:
            require_believed(rows, store)
            new = rows.sign("store", store, begins_xid=begin.xid, begins_id=begin.id)
            yield statement(UPDATE_STORE, *new)
    return last
