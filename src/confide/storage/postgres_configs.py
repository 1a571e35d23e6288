"""Saves and the change log on PostgreSQL."""

from __future__ import annotations

from confide.domain.audits import AuditEntry
from confide.domain.names import Key
from confide.domain.positions import Position
from confide.ports import Change, NewVersion, Replay, ReplayTaken
from confide.storage.configs import ConfigReads, replay_args
from confide.storage.transactions import UniqueTaken, audit_args

# One statement is one round trip and one transaction: version, audit entry and idempotency record, or nothing.
_APPEND = """
    WITH appended AS (
        INSERT INTO changes (kind, tenant, integration_type, version, key_id, body, saved_by, saved_at)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8
        WHERE $5::bytea IS NULL OR EXISTS (SELECT 1 FROM keys WHERE id = $5 AND wrapped IS NOT NULL)
        ON CONFLICT (tenant, integration_type, version) DO NOTHING RETURNING id
    ), audited AS (
        INSERT INTO audit (at, action, outcome, actor, token_id, address, request_id, tenant, integration_type,
                           version, subject, digest, mac, change_id)
        SELECT $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, id FROM appended
    ){replayed}
    SELECT id FROM appended
"""
_REPLAYED = """, replayed AS (
        INSERT INTO replays (user_id, route, name, mac, version, outcome, saved_at)
        SELECT $22, $23, $24, $25, $26, $27, $28 FROM appended
    )"""
APPEND = _APPEND.format(replayed="")
APPEND_WITH_REPLAY = _APPEND.format(replayed=_REPLAYED)

# Only below the horizon: what is above it may still be overtaken by a transaction that began earlier.
CHANGES_AFTER = """
    SELECT xid::text::bigint, id, kind, tenant, integration_type, version, subject FROM changes
    WHERE (xid, id) > ($1::text::xid8, $2::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY changes.xid, changes.id LIMIT $3
"""


class PostgresConfigs(ConfigReads):
    """Versions of configs on PostgreSQL: the log's order is (xid, id)."""

    async def append(self, new: NewVersion, *, entry: AuditEntry, mac: bytes, replay: Replay | None) -> bool:
        saved = (str(new.kind), *new.key, new.version, new.key_id, new.body, new.saved_by, new.saved_at)
        args = (*saved, *audit_args(entry, mac=mac))
        try:
            if replay is None:
                return bool(await self._engine.rows(APPEND, *args))
            kept = replay_args(replay, saved_at=new.saved_at)
            return bool(await self._engine.rows(APPEND_WITH_REPLAY, *args, *kept))
        except UniqueTaken:
            raise ReplayTaken from None

    async def changes_after(self, position: Position, *, limit: int) -> list[Change]:
        rows = await self._engine.rows(CHANGES_AFTER, str(position.xid), position.id, limit)
        return [
            Change(Position(xid, id_), kind, tenant, Key(tenant, type_) if type_ else None, version, subject)
            for xid, id_, kind, tenant, type_, version, subject in rows
        ]
