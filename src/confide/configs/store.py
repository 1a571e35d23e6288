"""Versions of configs in the change log, as far as both engines read and write them alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confide.changes.model import Position
from confide.configs.model import (
    ANY_CONFIG,
    ConfigFilter,
    ConfigSummary,
    EncryptedConfig,
    IdempotencyKeyTaken,
    IdempotencyRecord,
    Kind,
    NewVersion,
    Outcome,
    StoredVersion,
    VersionSummary,
    VersionWithDataKey,
)
from confide.crypto.model import WrappedKey
from confide.database.engine import Engine, Transaction, UniqueTaken, statement
from confide.database.model import Row
from confide.identity.model import Scope
from confide.names import Key

READ = """/* configs.read */
    SELECT version, kind, body FROM changes
    WHERE tenant = $1 AND integration_type = $2 ORDER BY version DESC LIMIT 1
"""
APPEND = """/* configs.append */
    INSERT INTO changes (kind, tenant, integration_type, version, key_id, body, saved_by, saved_at, note)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
    WHERE $5 IS NULL OR EXISTS (SELECT 1 FROM keys WHERE id = $5 AND wrapped IS NOT NULL)
    ON CONFLICT (tenant, integration_type, version) DO NOTHING RETURNING id
"""
KEEP_REPLAY = """/* configs.keep_replay */
    INSERT INTO replays (user_id, route, name, mac, version, outcome, saved_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
READ_VERSION = """/* configs.read_version */
    SELECT version, kind, body FROM changes WHERE tenant = $1 AND integration_type = $2 AND version = $3
"""
VERSIONS = """/* configs.versions */
    SELECT c.version, {xid}, c.id, c.kind, u.login, c.saved_at, c.note,
           c.kind = 'saved' AND (c.body IS NULL OR k.wrapped IS NULL AND k.id IS NOT NULL)
    FROM changes c LEFT JOIN users u ON u.id = c.saved_by LEFT JOIN keys k ON k.id = c.key_id
    WHERE c.tenant = $1 AND c.integration_type = $2 AND c.version < $3 ORDER BY c.version DESC LIMIT $4
"""
NEWER_THAN_ANY = 2**63 - 1
LIST = """/* configs.list */
    SELECT c.tenant, c.integration_type, c.version, c.saved_at{columns} FROM changes c {joined}
    WHERE (c.tenant, c.integration_type) > ($1, $2) AND c.kind = 'saved' AND {scopes}{more}
      AND c.version = (SELECT max(n.version) FROM changes n
                       WHERE n.tenant = c.tenant AND n.integration_type = c.integration_type)
    ORDER BY c.tenant, c.integration_type LIMIT $3
"""


LAST_READ = """,
    (SELECT max(u.last_read_at) FROM usage u WHERE u.tenant = c.tenant AND u.integration_type = c.integration_type)"""
BODY = ", c.kind, c.body, k.id, k.master_key_id, k.wrapped"
WITH_KEY = "LEFT JOIN keys k ON k.purpose = 'config' AND k.tenant = c.tenant AND k.wrapped IS NOT NULL"


class ConfigStore:
    """What is read and kept of configs in the same words on both engines."""

    # How the log's number of a transaction is read, where there is one.
    xid = "0"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def read(self, key: Key) -> StoredVersion | None:
        return (await self.read_with_key(key)).current

    async def read_with_key(self, key: Key) -> VersionWithDataKey:
        rows = await self._engine.rows(READ, *key)
        return VersionWithDataKey(stored_version_of(key, rows[0]) if rows else None, None)

    async def read_version(self, key: Key, version: int) -> StoredVersion | None:
        rows = await self._engine.rows(READ_VERSION, *key, version)
        return stored_version_of(key, rows[0]) if rows else None

    async def versions(self, key: Key, *, before: int | None, limit: int) -> list[VersionSummary]:
        until = NEWER_THAN_ANY if before is None else before
        rows = await self._engine.rows(VERSIONS.format(xid=self.xid), *key, until, limit)
        return [
            VersionSummary(version, Position(xid, id_), Kind(kind), login, at, note, is_pruned=bool(is_pruned))
            for version, xid, id_, kind, login, at, note, is_pruned in rows
        ]

    async def page(
        self, scopes: Sequence[Sequence[Scope]], *, after: Key | None, limit: int, more: ConfigFilter = ANY_CONFIG
    ) -> list[ConfigSummary]:
        if not all(scopes):
            return []
        args: list[Any] = [*(after or ("", "")), limit]
        conditions = {"scopes": _condition(scopes, args), "more": _more(more, args)}
        rows = await self._engine.searched(LIST.format(columns=LAST_READ, joined="", **conditions), *args)
        return [ConfigSummary(Key(row[0], row[1]), *row[2:]) for row in rows]

    async def sealed_page(
        self, scopes: Sequence[Sequence[Scope]], *, after: Key | None, limit: int, more: ConfigFilter = ANY_CONFIG
    ) -> list[EncryptedConfig]:
        if not all(scopes):
            return []
        args: list[Any] = [*(after or ("", "")), limit]
        conditions = {"scopes": _condition(scopes, args), "more": _more(more, args)}
        sql = LIST.format(columns=BODY, joined=WITH_KEY, **conditions)
        return [_sealed(row) for row in await self._engine.searched(sql, *args)]

    async def read_replay(self, replay: IdempotencyRecord, *, not_before: int) -> IdempotencyRecord | None:
        rows = await self._engine.rows(
            "/* configs.read_replay */ SELECT mac, version, outcome FROM replays"
            " WHERE user_id = $1 AND route = $2 AND name = $3 AND saved_at >= $4",
            replay.user_id,
            replay.route,
            replay.name,
            not_before,
        )
        return _replay(replay, rows[0]) if rows else None

    async def keep_replay(self, replay: IdempotencyRecord, *, saved_at: int) -> None:
        try:
            await self._engine.transact(_keep(replay, saved_at))
        except UniqueTaken:
            raise IdempotencyKeyTaken from None

    async def forget_replays(self, *, before: int) -> None:
        await self._engine.transact(_forget(before))


def _keep(replay: IdempotencyRecord, saved_at: int) -> Transaction[None]:
    yield statement(KEEP_REPLAY, *replay_args(replay, saved_at=saved_at))


def _forget(before: int) -> Transaction[None]:
    yield statement("/* configs.forget_replays */ DELETE FROM replays WHERE saved_at < $1", before)


def saved_args(new: NewVersion) -> tuple[Any, ...]:
    return (str(new.kind), *new.key, new.version, new.key_id, new.body, new.saved_by, new.saved_at, new.note)


def replay_args(replay: IdempotencyRecord, *, saved_at: int) -> tuple[Any, ...]:
    return (
        replay.user_id,
        replay.route,
        replay.name,
        replay.mac,
        replay.version,
        str(replay.outcome),
        saved_at,
    )


def stored_version_of(key: Key, row: Row) -> StoredVersion:
    version, kind, body = row
    return StoredVersion(key, version, Kind(kind), body)


def _sealed(row: Row) -> EncryptedConfig:
    tenant, type_, version, saved_at, kind, body, *wrapping = row
    current = stored_version_of(Key(tenant, type_), (version, kind, body))
    return EncryptedConfig(saved_at, current, tenant_key_of(tenant, wrapping))


def tenant_key_of(tenant: str, row: Row) -> WrappedKey | None:
    """The key that came along with a config of a tenant, if there is an active one."""
    key_id, master_key_id, wrapped = row
    return None if key_id is None else WrappedKey(key_id, "config", tenant, master_key_id, wrapped)


def _replay(asked: IdempotencyRecord, row: Row) -> IdempotencyRecord:
    mac, version, outcome = row
    return IdempotencyRecord(asked.user_id, asked.route, asked.name, bytes(mac), version, Outcome(outcome))


def _more(wanted: ConfigFilter, args: list[Any]) -> str:
    parts = ""
    if wanted.changed_since is not None:
        args.append(wanted.changed_since)
        parts += f" AND c.saved_at >= ${len(args)}"
    if wanted.unread_since is not None:
        args.append(wanted.unread_since)
        parts += (
            f" AND c.saved_at < ${len(args)} AND NOT EXISTS (SELECT 1 FROM usage u WHERE u.tenant = c.tenant"
            f" AND u.integration_type = c.integration_type AND u.last_read_at >= ${len(args)})"
        )
    return parts


def _condition(scopes: Sequence[Sequence[Scope]], args: list[Any]) -> str:
    """One scope of each group, as bounds that an index can walk; the bounds are appended to the arguments."""
    groups = []
    for group in scopes:
        choices = []
        for scope in group:
            at = len(args)
            args.extend(scope.bounds())
            choices.append(
                f"(c.tenant BETWEEN ${at + 1} AND ${at + 2} AND c.integration_type BETWEEN ${at + 3} AND ${at + 4})"
            )
        groups.append(f"({' OR '.join(choices)})")
    return " AND ".join(groups)
