"""Saves and the change log on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from confide.audit.model import AuditEntry
from confide.changes.model import Change, LogBounds, Position
from confide.configs.model import IdempotencyKeyTaken, IdempotencyRecord, NewVersion, VersionWithDataKey
from confide.configs.store import ConfigStore, replay_args, saved_args, stored_version_of, tenant_key_of
from confide.database.batcher import Batcher
from confide.database.engine import Engine, UniqueTaken
from confide.database.log import audit_values
from confide.database.model import Row
from confide.names import Key
from confide.telemetry.operations import SILENT, IoLog

# One statement is one round trip and one transaction: version, audit entry and idempotency record, or nothing.
_APPEND = """/* configs.append */
    WITH appended AS (
        INSERT INTO changes (kind, tenant, integration_type, version, key_id, body, saved_by, saved_at, note)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
        WHERE $5::bytea IS NULL OR EXISTS (SELECT 1 FROM keys WHERE id = $5 AND wrapped IS NOT NULL)
        ON CONFLICT (tenant, integration_type, version) DO NOTHING RETURNING id
    ), audited AS (
        INSERT INTO audit (at, action, outcome, actor, token_id, address, request_id, tenant, integration_type,
                           version, subject, digest, mac, change_id)
        SELECT $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, id FROM appended
    ){replayed}
    SELECT id FROM appended
"""
_REPLAYED = """, replayed AS (
        INSERT INTO replays (user_id, route, name, mac, version, outcome, saved_at)
        SELECT $23, $24, $25, $26, $27, $28, $29 FROM appended
    )"""
APPEND = _APPEND.format(replayed="")
APPEND_WITH_REPLAY = _APPEND.format(replayed=_REPLAYED)

# The current version, if there is any, with the tenant's active key: most likely it opens what is there.
READ = """/* configs.read */
    SELECT c.version, c.kind, c.body, k.id, k.master_key_id, k.wrapped FROM changes c
    LEFT JOIN keys k ON k.purpose = 'config' AND k.tenant = $1 AND k.wrapped IS NOT NULL
    WHERE c.tenant = $1 AND c.integration_type = $2 ORDER BY c.version DESC LIMIT 1
"""
# Several reads in one round trip. The limits keep the planner on the indexes, however many it expects.
READ_MANY = """/* configs.read_many */
    SELECT one.version, one.kind, one.body, k.id, k.master_key_id, k.wrapped
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (tenant, integration_type, number)
    LEFT JOIN LATERAL (
        SELECT version, kind, body FROM changes c
        WHERE c.tenant = asked.tenant AND c.integration_type = asked.integration_type ORDER BY version DESC LIMIT 1
    ) AS one ON TRUE
    LEFT JOIN LATERAL (
        SELECT id, master_key_id, wrapped FROM keys
        WHERE purpose = 'config' AND keys.tenant = asked.tenant AND wrapped IS NOT NULL LIMIT 1
    ) AS k ON TRUE
    ORDER BY asked.number
"""
# Several saves in one statement: each is appended with its audit entry, or its version was there. All take the
# places of their versions in the same order, so that two such statements wait for each other one way only.
APPEND_MANY = """/* configs.append_many */
    WITH asked AS (
        SELECT * FROM unnest(
            $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bigint[], $8::bigint[],
            $9::text[], $10::bigint[], $11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::text[], $16::text[],
            $17::text[], $18::text[], $19::bigint[], $20::text[], $21::bytea[], $22::bytea[]
        ) AS a (kind, tenant, integration_type, version, key_id, body, saved_by, saved_at, note,
                at, action, outcome, actor, token_id, address, request_id,
                about_tenant, about_type, about_version, subject, digest, mac)
    ), appended AS (
        INSERT INTO changes (kind, tenant, integration_type, version, key_id, body, saved_by, saved_at, note)
        SELECT kind, tenant, integration_type, version, key_id, body, saved_by, saved_at, note FROM asked
        WHERE key_id IS NULL OR EXISTS (SELECT 1 FROM keys WHERE id = asked.key_id AND wrapped IS NOT NULL)
        ORDER BY tenant, integration_type, version
        ON CONFLICT (tenant, integration_type, version) DO NOTHING
        RETURNING id, tenant, integration_type, version
    ), audited AS (
        INSERT INTO audit (at, action, outcome, actor, token_id, address, request_id, tenant, integration_type,
                           version, subject, digest, mac, change_id)
        SELECT at, action, outcome, actor, token_id, address, request_id, about_tenant, about_type,
               about_version, subject, digest, mac, appended.id
        FROM asked JOIN appended USING (tenant, integration_type, version)
    )
    SELECT tenant, integration_type, version FROM appended
"""

# Only below the horizon: what is above it may still be overtaken by a transaction that began earlier.
CHANGES_AFTER = """/* configs.changes_after */
    SELECT xid::text::bigint, id, kind, tenant, integration_type, version, subject FROM changes
    WHERE (xid, id) > ($1::text::xid8, $2::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY changes.xid, changes.id LIMIT $3
"""
# What is below the horizon is complete; what will come is at the highest transaction or above it.
BOUNDS = """/* configs.bounds */
    SELECT begins_xid, begins_id, pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint
    FROM store, pg_current_snapshot() AS s
"""
HIGHEST = 2**63 - 1

NO_ROW: Row = (None,) * 6


class PostgresqlConfigStore(ConfigStore):
    """Versions of configs on PostgreSQL: the log's order is (xid, id)."""

    xid = "c.xid::text::bigint"

    def __init__(self, engine: Engine, *, io: IoLog = SILENT) -> None:
        super().__init__(engine)
        self._reads: Batcher[Key, VersionWithDataKey] = Batcher(self._read_all, at_once=2, operation="wait read", io=io)
        self._saves: Batcher[Row, bool] = Batcher(self._append_all, at_once=1, operation="wait append", io=io)

    async def read_with_key(self, key: Key) -> VersionWithDataKey:
        return await self._reads.get(key)

    async def append(self, new: NewVersion, *, entry: AuditEntry, mac: bytes, replay: IdempotencyRecord | None) -> bool:
        args = (*saved_args(new), *audit_values(entry, mac=mac))
        if replay is None:
            return await self._saves.get(args)
        # Alone: if its record is there already, that must undo nothing of anybody else.
        try:
            kept = replay_args(replay, saved_at=new.saved_at)
            return bool(await self._engine.rows(APPEND_WITH_REPLAY, *args, *kept))
        except UniqueTaken:
            raise IdempotencyKeyTaken from None

    async def bounds(self) -> LogBounds:
        ((begins_xid, begins_id, lowest, highest),) = await self._engine.rows(BOUNDS)
        begins = Position(begins_xid, begins_id)
        return LogBounds(begins, Position(lowest - 1, HIGHEST), Position(highest, HIGHEST))

    async def changes_after(self, position: Position, *, limit: int) -> list[Change]:
        rows = await self._engine.rows(CHANGES_AFTER, str(position.xid), position.id, limit)
        return [Change(Position(*row[:2]), *row[2:]) for row in rows]

    async def _read_all(self, keys: Sequence[Key]) -> list[VersionWithDataKey]:
        if len(keys) == 1:
            rows = await self._engine.rows(READ, *keys[0]) or [NO_ROW]
        else:
            tenants, types = zip(*keys, strict=True)
            rows = await self._engine.rows(READ_MANY, tenants, types)
        return [_with_key(key, row) for key, row in zip(keys, rows, strict=True)]

    async def _append_all(self, saves: Sequence[Row]) -> list[bool]:
        if len(saves) == 1:
            return [bool(await self._engine.rows(APPEND, *saves[0]))]
        # Of two saves of one version the first one goes, as if they had come one after the other.
        first = {save[1:4]: number for number, save in reversed(list(enumerate(saves)))}
        asked = [saves[number] for number in first.values()]
        appended = {tuple(row) for row in await self._engine.rows(APPEND_MANY, *zip(*asked, strict=True))}
        return [save[1:4] in appended and first[save[1:4]] == number for number, save in enumerate(saves)]


def _with_key(key: Key, row: Row) -> VersionWithDataKey:
    version, kind, body, *wrapping = row
    if version is None:
        return VersionWithDataKey(None, None)
    return VersionWithDataKey(stored_version_of(key, (version, kind, body)), tenant_key_of(key.tenant, wrapping))
