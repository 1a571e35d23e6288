"""The SQL of configs on both engines. A version is a row of the change log that has a key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from confide.audit.model import EntryDraft, SignedEntry
from confide.caching.stamps import SlotChange, find_config_slot
from confide.changes.model import Change, LogBounds, Position
from confide.configs.errors import IdempotencyKeyTaken, Superseded
from confide.configs.model import (
    ANY_CONFIG,
    ConfigFilter,
    ConfigSummary,
    EncryptedConfig,
    IdempotencyRecord,
    Kind,
    NewVersion,
    Outcome,
    StoredVersion,
    TenantSummary,
    VersionSummary,
    VersionWithDataKey,
)
from confide.crypto.errors import IntegrityBroken
from confide.crypto.model import WrappedKey
from confide.database.batcher import Batcher
from confide.database.engine import Engine, Transaction, UniqueTaken, statement
from confide.database.identity import READ_EPOCH
from confide.database.log import EntryRow, build_entry_row, giving_up_on_failure, insert_audit
from confide.database.model import Row, Rows
from confide.database.rows import insert_into, list_array_placeholders, list_columns, list_placeholders
from confide.database.seen_commits import SeenChange, SeenCommits
from confide.epoch import CurrentEpoch, Epoch
from confide.errors import Busy
from confide.identity.model import Scope, ScopeBounds
from confide.names import ConfigKey
from confide.telemetry.io_log import NO_IO_LOG, IoLog


class VersionRow(NamedTuple):
    """A row of the table `changes` that is a version of a config."""

    kind: str
    tenant: str
    integration_type: str
    version: int
    key_id: bytes | None
    body: bytes | None
    saved_by: int
    saved_at: int
    note: str | None

    @classmethod
    def from_value(cls, new: NewVersion) -> VersionRow:
        return cls(
            str(new.kind), *new.key, new.version, new.data_key_id, new.body, new.saved_by, new.saved_at, new.note
        )


class IdempotencyRow(NamedTuple):
    """A row of the table `replays`: an idempotency record."""

    user_id: int
    route: str
    name: str
    mac: bytes
    version: int
    outcome: str
    saved_at: int

    @classmethod
    def from_value(cls, record: IdempotencyRecord, *, saved_at: int) -> IdempotencyRow:
        return cls(
            record.user_id,
            record.route,
            record.idempotency_key,
            record.content_mac,
            record.version,
            str(record.outcome),
            saved_at,
        )


MAX_NUMBER = 2**63 - 1
# A statement that appends has the placeholders of the version first. These are the numbers of its data key, of the
# first placeholders of the audit row and of the idempotency row, and of the epoch in which the save was planned.
DATA_KEY_AT = VersionRow._fields.index("key_id") + 1
ENTRY_AT = len(VersionRow._fields) + 1
EPOCH_AT = ENTRY_AT + len(EntryRow._fields)
# The index of the MAC in the row of a save.
MAC_AT = ENTRY_AT - 1 + EntryRow._fields.index("mac")
IDEMPOTENCY_AT = EPOCH_AT + 1
# A version is inserted only while its data key exists. A tombstone has no data key.
_DATA_KEY_EXISTS = f"EXISTS (SELECT 1 FROM keys WHERE id = ${DATA_KEY_AT} AND wrapped IS NOT NULL)"
# No number is given twice: one up to that of an audit entry belonged to a version, even if its row is gone.
# The order and the limit make PostgreSQL use the index, also in a statement for many versions.
_FIND_ENTRY = """
    (SELECT e.version FROM audit e WHERE e.tenant = {tenant} AND e.integration_type = {type_} AND e.version >= {version}
     ORDER BY e.tenant, e.integration_type, e.version LIMIT 1)
"""
IS_REMOVED = """/* configs.is_removed */
    SELECT 1 WHERE EXISTS (SELECT 1 FROM audit WHERE tenant = $1 AND integration_type = $2 AND version >= $3)
        AND NOT EXISTS (SELECT 1 FROM changes WHERE tenant = $1 AND integration_type = $2 AND version = $3)
"""
REMOVED = "The newest version of this config was removed from the database. Tell the operator."
INSERT_IDEMPOTENCY = f"/* configs.keep_replay */ {insert_into('replays', IdempotencyRow)}"
READ_VERSION = """/* configs.read_version */
    SELECT version, kind, body FROM changes WHERE tenant = $1 AND integration_type = $2 AND version = $3
"""
VERSIONS = """/* configs.versions */
    SELECT c.version, {xid}, c.id, c.kind, u.login, c.saved_at, c.note,
           c.kind = 'saved' AND (c.body IS NULL OR k.wrapped IS NULL AND k.id IS NOT NULL)
    FROM changes c LEFT JOIN users u ON u.id = c.saved_by AND u.removed_at IS NULL LEFT JOIN keys k ON k.id = c.key_id
    WHERE c.tenant = $1 AND c.integration_type = $2 AND c.version < $3 ORDER BY c.version DESC LIMIT $4
"""
LIST = """/* configs.list */
    SELECT c.tenant, c.integration_type, c.version, c.saved_at{columns} FROM changes c {joined}
    WHERE (c.tenant, c.integration_type) > ($1, $2) AND c.kind = 'saved' AND {scopes}{filters}
      AND c.version = (SELECT max(n.version) FROM changes n
                       WHERE n.tenant = c.tenant AND n.integration_type = c.integration_type)
    ORDER BY c.tenant, c.integration_type LIMIT $3
"""
LAST_READ_COLUMN = """,
    (SELECT max(u.last_read_at) FROM usage u WHERE u.tenant = c.tenant AND u.integration_type = c.integration_type)"""
BODY_COLUMNS = ", c.kind, c.body, k.id, k.master_key_id, k.wrapped"
JOIN_DATA_KEY = "LEFT JOIN keys k ON k.purpose = 'config' AND k.tenant = c.tenant AND k.wrapped IS NOT NULL"

LIST_TENANTS = """/* configs.list_tenants */
    SELECT c.tenant, count(*) FROM changes c
    WHERE c.tenant > $1 AND c.kind = 'saved' AND {scopes}
      AND c.version = (SELECT max(n.version) FROM changes n
                       WHERE n.tenant = c.tenant AND n.integration_type = c.integration_type)
    GROUP BY c.tenant ORDER BY c.tenant LIMIT $2
"""

SQLITE_READ = """/* configs.read */
    SELECT version, kind, body FROM changes
    WHERE tenant = $1 AND integration_type = $2 ORDER BY version DESC LIMIT 1
"""
SQLITE_APPEND = f"""/* configs.append */
    INSERT INTO changes ({list_columns(VersionRow)}) SELECT {list_placeholders(VersionRow)}
    WHERE (${DATA_KEY_AT} IS NULL OR {_DATA_KEY_EXISTS})
      AND (SELECT epoch FROM store) = ${len(VersionRow._fields) + 1}
      AND NOT EXISTS (SELECT 1 FROM audit WHERE tenant = $2 AND integration_type = $3 AND version >= $4)
    ON CONFLICT (tenant, integration_type, version) DO NOTHING RETURNING id
"""
SQLITE_CHANGES_AFTER = """/* configs.changes_after */
    SELECT id, kind, tenant, integration_type, version, subject FROM changes
    WHERE id > $1 ORDER BY id LIMIT $2
"""
# The highest ID that was ever assigned, even if its row was deleted since.
SQLITE_BOUNDS = """/* configs.bounds */
    SELECT begins_id, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0) FROM store
"""

# One statement is one round trip and one transaction: it inserts version, audit entry and record, or nothing.
_APPEND = f"""/* configs.append */
    WITH appended AS (
        INSERT INTO changes ({list_columns(VersionRow)}) SELECT {list_placeholders(VersionRow)}
        WHERE (${DATA_KEY_AT}::bytea IS NULL OR {_DATA_KEY_EXISTS}) AND (SELECT epoch FROM store) = ${EPOCH_AT}
          AND {_FIND_ENTRY.format(tenant="$2", type_="$3", version="$4")} IS NULL
        ON CONFLICT (tenant, integration_type, version) DO NOTHING
        RETURNING xid, id, tenant, integration_type, version
    ), audited AS (
        INSERT INTO audit ({list_columns(EntryRow)}, change_id)
        SELECT {list_placeholders(EntryRow, start=ENTRY_AT)}, id FROM appended
    ){{idempotency}}
    SELECT xid::text::bigint, id, tenant, integration_type, version FROM appended
"""
POSTGRESQL_APPEND = _APPEND.format(idempotency="")
POSTGRESQL_APPEND_IDEMPOTENT = _APPEND.format(
    idempotency=f""", replayed AS (
        INSERT INTO replays ({list_columns(IdempotencyRow)})
        SELECT {list_placeholders(IdempotencyRow, start=IDEMPOTENCY_AT)} FROM appended
    )"""
)
# The current version with the active data key of its tenant, which usually decrypts it.
POSTGRESQL_READ = """/* configs.read */
    SELECT c.version, c.kind, c.body, k.id, k.master_key_id, k.wrapped FROM changes c
    LEFT JOIN keys k ON k.purpose = 'config' AND k.tenant = $1 AND k.wrapped IS NOT NULL
    WHERE c.tenant = $1 AND c.integration_type = $2 ORDER BY c.version DESC LIMIT 1
"""
# Several reads in one round trip. The limits make PostgreSQL use the indexes, however many rows it expects.
POSTGRESQL_READ_MANY = """/* configs.read_many */
    SELECT latest.version, latest.kind, latest.body, k.id, k.master_key_id, k.wrapped
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS requested (tenant, integration_type, number)
    LEFT JOIN LATERAL (
        SELECT version, kind, body FROM changes c
        WHERE c.tenant = requested.tenant AND c.integration_type = requested.integration_type
        ORDER BY version DESC LIMIT 1
    ) AS latest ON TRUE
    LEFT JOIN LATERAL (
        SELECT id, master_key_id, wrapped FROM keys
        WHERE purpose = 'config' AND keys.tenant = requested.tenant AND wrapped IS NOT NULL LIMIT 1
    ) AS k ON TRUE
    ORDER BY requested.number
"""
# Several saves in one statement. Each version is inserted with its audit entry, unless the version exists. The order of
# the rows is fixed, so that two such statements cannot deadlock.
POSTGRESQL_APPEND_MANY = f"""/* configs.append_many */
    WITH requested AS (
        SELECT * FROM unnest(
            {list_array_placeholders(VersionRow)}, {list_array_placeholders(EntryRow, start=ENTRY_AT)},
            ${EPOCH_AT}::text[]
        ) AS a ({list_columns(VersionRow)}, {", ".join(f"entry_{name}" for name in EntryRow._fields)}, planned_in)
    ), appended AS (
        INSERT INTO changes ({list_columns(VersionRow)})
        SELECT {list_columns(VersionRow)} FROM requested
        WHERE (key_id IS NULL OR EXISTS (SELECT 1 FROM keys WHERE id = requested.key_id AND wrapped IS NOT NULL))
          AND planned_in = (SELECT epoch FROM store)
          AND {
    _FIND_ENTRY.format(tenant="requested.tenant", type_="requested.integration_type", version="requested.version")
} IS NULL
        ORDER BY tenant, integration_type, version
        ON CONFLICT (tenant, integration_type, version) DO NOTHING
        RETURNING xid, id, tenant, integration_type, version
    ), audited AS (
        INSERT INTO audit ({list_columns(EntryRow)}, change_id)
        SELECT {", ".join(f"entry_{name}" for name in EntryRow._fields)}, appended.id
        FROM requested JOIN appended USING (tenant, integration_type, version)
    )
    SELECT xid::text::bigint, id, tenant, integration_type, version FROM appended
"""
# Only below the oldest running transaction: above it, an earlier change may still be committed.
POSTGRESQL_CHANGES_AFTER = """/* configs.changes_after */
    SELECT xid::text::bigint, id, kind, tenant, integration_type, version, subject FROM changes
    WHERE (xid, id) > ($1::text::xid8, $2::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY changes.xid, changes.id LIMIT $3
"""
# Below the oldest running transaction the log is complete. New changes get the highest transaction ID or a later one.
POSTGRESQL_BOUNDS = """/* configs.bounds */
    SELECT begins_xid, begins_id, pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint
    FROM store, pg_current_snapshot() AS s
"""

_NO_ROW: Row = (None,) * 6


class _Append(NamedTuple):
    """The arguments of a statement that appends a version, and the slot that it changes."""

    row: Row
    change: SlotChange


class ConfigStore(ABC):
    """Stores versions of configs. A subclass for each engine appends versions and reads the change log."""

    # The SQL expression of the transaction ID of a change. SQLite has none.
    xid = "0"

    def __init__(self, engine: Engine, epoch: CurrentEpoch) -> None:
        self._engine = engine
        self._epoch = epoch

    @abstractmethod
    async def read_with_data_key(self, key: ConfigKey) -> VersionWithDataKey:
        """Read the current version, even a tombstone, with the active data key of its tenant (PostgreSQL only)."""

    @abstractmethod
    async def append(
        self,
        new: NewVersion,
        *,
        audit: EntryDraft,
        idempotency: IdempotencyRecord | None,
        epoch: Epoch,
        change: SlotChange,
    ) -> None:
        """Append a version with its audit entry and idempotency record in one transaction.

        Raises `IntegrityBroken` if the version has an audit entry and no row, because its row was removed without
        Confide. Raises `Superseded` if the version exists, the data key is no longer active, or the database is in
        another epoch than the one in which the save was planned. Then this process adopts that epoch. Raises
        `IdempotencyKeyTaken` if the record exists. In each case nothing is stored.
        """

    @abstractmethod
    async def read_changes_after(self, position: Position, *, limit: int) -> list[Change]:
        """Read changes in the order of the log, up to the oldest running transaction."""

    @abstractmethod
    async def read_bounds(self) -> LogBounds:
        """Read the range of the log that is complete."""

    async def confirm(self, key: ConfigKey) -> None:
        """Stamp a config before an answer confirms its version."""
        await self._engine.confirm(find_config_slot(*key))

    async def read(self, key: ConfigKey) -> StoredVersion | None:
        """Read the current version, even a tombstone."""
        return (await self.read_with_data_key(key)).current

    async def read_version(self, key: ConfigKey, version: int) -> StoredVersion | None:
        rows = await self._engine.query(READ_VERSION, *key, version)
        return _read_version(key, rows[0]) if rows else None

    async def list_versions(self, key: ConfigKey, *, before: int | None, limit: int) -> list[VersionSummary]:
        """List versions below `before`, the newest first, including tombstones and pruned versions."""
        until = MAX_NUMBER if before is None else before
        rows = await self._engine.query(VERSIONS.format(xid=self.xid), *key, until, limit)
        return [
            VersionSummary(version, Position(xid, id_), Kind(kind), login, at, note, is_pruned=bool(is_pruned))
            for version, xid, id_, kind, login, at, note, is_pruned in rows
        ]

    async def list_page(
        self,
        scopes: Sequence[Sequence[Scope]],
        *,
        after: ConfigKey | None,
        limit: int,
        filters: ConfigFilter = ANY_CONFIG,
    ) -> list[ConfigSummary]:
        """List configs that one scope of each group covers, in order of key. Skip deleted configs."""
        if not all(scopes):
            return []
        args: list[Any] = [*(after or ("", "")), limit]
        conditions = {"scopes": _build_scope_conditions(scopes, args), "filters": _build_filters(filters, args)}
        rows = await self._engine.search(LIST.format(columns=LAST_READ_COLUMN, joined="", **conditions), *args)
        return [ConfigSummary(ConfigKey(row[0], row[1]), *row[2:]) for row in rows]

    async def list_tenants(
        self, scopes: Sequence[Sequence[Scope]], *, after: str | None, limit: int
    ) -> list[TenantSummary]:
        """List tenants with configs that one scope of each group covers, in order of name."""
        if not all(scopes):
            return []
        args: list[Any] = [after or "", limit]
        sql = LIST_TENANTS.format(scopes=_build_scope_conditions(scopes, args))
        return [TenantSummary(*row) for row in await self._engine.search(sql, *args)]

    async def list_encrypted_page(
        self,
        scopes: Sequence[Sequence[Scope]],
        *,
        after: ConfigKey | None,
        limit: int,
        filters: ConfigFilter = ANY_CONFIG,
    ) -> list[EncryptedConfig]:
        """List the same page as `list_page`, with encrypted bodies."""
        if not all(scopes):
            return []
        args: list[Any] = [*(after or ("", "")), limit]
        conditions = {"scopes": _build_scope_conditions(scopes, args), "filters": _build_filters(filters, args)}
        sql = LIST.format(columns=BODY_COLUMNS, joined=JOIN_DATA_KEY, **conditions)
        return [_read_encrypted(row) for row in await self._engine.search(sql, *args)]

    async def read_idempotency_record(self, record: IdempotencyRecord, *, not_before: int) -> IdempotencyRecord | None:
        rows = await self._engine.query(
            "/* configs.read_replay */ SELECT mac, version, outcome FROM replays"
            " WHERE user_id = $1 AND route = $2 AND name = $3 AND saved_at >= $4",
            record.user_id,
            record.route,
            record.idempotency_key,
            not_before,
        )
        if not rows:
            return None
        content_mac, version, outcome = rows[0]
        return IdempotencyRecord(
            record.user_id, record.route, record.idempotency_key, bytes(content_mac), version, Outcome(outcome)
        )

    async def insert_idempotency_record(self, record: IdempotencyRecord, *, saved_at: int) -> None:
        """Insert the record of a request that changed nothing. Raises `IdempotencyKeyTaken`."""
        try:
            await self._engine.execute(INSERT_IDEMPOTENCY, *IdempotencyRow.from_value(record, saved_at=saved_at))
        except UniqueTaken:
            raise IdempotencyKeyTaken from None

    async def delete_idempotency_records(self, *, before: int) -> None:
        await self._engine.execute("/* configs.forget_replays */ DELETE FROM replays WHERE saved_at < $1", before)


class SqliteConfigStore(ConfigStore):
    """Stores versions on SQLite. One writer commits at a time, so the row ID is the order of the log."""

    async def read_with_data_key(self, key: ConfigKey) -> VersionWithDataKey:
        rows = await self._engine.query(SQLITE_READ, *key)
        return VersionWithDataKey(_read_version(key, rows[0]) if rows else None, None)

    async def append(
        self,
        new: NewVersion,
        *,
        audit: EntryDraft,
        idempotency: IdempotencyRecord | None,
        epoch: Epoch,
        change: SlotChange,
    ) -> None:
        # Signed here and not in the transaction, in which the writer thread would take the interpreter lock for longer.
        with giving_up_on_failure(audit):
            try:
                found = await self._engine.transact(_append(new, audit.sign(), idempotency, epoch, change))
            except UniqueTaken:
                raise IdempotencyKeyTaken from None
            if found is not None:
                self._epoch.adopt(found)
                raise Superseded

    async def read_bounds(self) -> LogBounds:
        ((begin, last),) = await self._engine.query(SQLITE_BOUNDS)
        return LogBounds(Position(0, begin), Position(0, last), Position(0, last))

    async def read_changes_after(self, position: Position, *, limit: int) -> list[Change]:
        rows = await self._engine.query(SQLITE_CHANGES_AFTER, position.id, limit)
        return [Change(Position(0, row[0]), *row[1:]) for row in rows]


class PostgresqlConfigStore(ConfigStore):
    """Stores versions on PostgreSQL. The order of the log is (transaction ID, row ID)."""

    xid = "c.xid::text::bigint"

    def __init__(self, engine: Engine, epoch: CurrentEpoch, seen: SeenCommits, *, io: IoLog = NO_IO_LOG) -> None:
        super().__init__(engine, epoch)
        self._seen = seen
        self._reads: Batcher[ConfigKey, VersionWithDataKey] = Batcher(
            self._read_batch, max_running=2, operation="wait read", io=io
        )
        self._saves: Batcher[_Append, bool] = Batcher(self._append_batch, max_running=1, operation="wait append", io=io)

    async def read_with_data_key(self, key: ConfigKey) -> VersionWithDataKey:
        return await self._reads.submit(key)

    async def append(
        self,
        new: NewVersion,
        *,
        audit: EntryDraft,
        idempotency: IdempotencyRecord | None,
        epoch: Epoch,
        change: SlotChange,
    ) -> None:
        with giving_up_on_failure(audit):
            row = (*VersionRow.from_value(new), *build_entry_row(audit.sign()), epoch.id)
            if idempotency is None:
                if not await self._saves.submit(_Append(row, change)):
                    await self._raise_superseded(new)
                return
            # Not in a batch, because an existing record rolls back the whole statement.
            record = IdempotencyRow.from_value(idempotency, saved_at=new.saved_at)
            try:
                rows = await self._engine.execute(POSTGRESQL_APPEND_IDEMPOTENT, *row, *record, changes=[change])
            except UniqueTaken:
                raise IdempotencyKeyTaken from None
            if not await self._record_appended([row], rows):
                await self._raise_superseded(new)

    async def read_bounds(self) -> LogBounds:
        ((begin_xid, begin_id, lowest, highest),) = await self._engine.query(POSTGRESQL_BOUNDS)
        begin = Position(begin_xid, begin_id)
        return LogBounds(begin, Position(lowest - 1, MAX_NUMBER), Position(highest, MAX_NUMBER))

    async def read_changes_after(self, position: Position, *, limit: int) -> list[Change]:
        rows = await self._engine.query(POSTGRESQL_CHANGES_AFTER, str(position.xid), position.id, limit)
        return [Change(Position(*row[:2]), *row[2:]) for row in rows]

    async def _raise_superseded(self, new: NewVersion) -> NoReturn:
        if await self._engine.query(IS_REMOVED, *new.key, new.version):
            raise IntegrityBroken(REMOVED, retry_after_seconds=60)
        raise Superseded

    async def _read_batch(self, keys: Sequence[ConfigKey]) -> list[VersionWithDataKey]:
        if len(keys) == 1:
            rows = await self._engine.query(POSTGRESQL_READ, *keys[0]) or [_NO_ROW]
        else:
            tenants, types = zip(*keys, strict=True)
            rows = await self._engine.query(POSTGRESQL_READ_MANY, tenants, types)
        return [_read_version_with_key(key, row) for key, row in zip(keys, rows, strict=True)]

    async def _append_batch(self, appends: Sequence[_Append]) -> list[bool]:
        saves, changes = zip(*appends, strict=True)
        if len(saves) == 1:
            rows = await self._engine.execute(POSTGRESQL_APPEND, *saves[0], changes=changes)
            return [bool(await self._record_appended(saves, rows))]
        # Of two saves of one version, the first wins. Columns 1 to 3 are tenant, integration type and version.
        first = {save[1:4]: number for number, save in reversed(list(enumerate(saves)))}
        distinct = [saves[number] for number in first.values()]
        rows = await self._engine.execute(POSTGRESQL_APPEND_MANY, *zip(*distinct, strict=True), changes=changes)
        appended = await self._record_appended(distinct, rows)
        return [save[1:4] in appended and first[save[1:4]] == number for number, save in enumerate(saves)]

    async def _record_appended(self, saves: Sequence[Row], rows: Rows) -> AbstractSet[Row]:
        """Remember the versions that a statement appended, and return their columns 1 to 3.

        If it did not append all of them, adopt the epoch of the database: it may be another one.
        """
        positions: dict[Row, Position] = {tuple(row[2:]): Position(*row[:2]) for row in rows}
        for save in saves:
            if (position := positions.get(save[1:4])) is not None:
                self._seen.add((SeenChange(position, save[MAC_AT]),), epoch_id=save[EPOCH_AT - 1])
        if len(positions) < len(saves):
            with suppress(Busy):  # the others are stored, and a save that lost its race reads the epoch again
                ((*epoch,),) = await self._engine.query(READ_EPOCH)
                self._epoch.adopt(Epoch(*epoch))
        return positions.keys()


def _append(
    new: NewVersion, audit: SignedEntry, idempotency: IdempotencyRecord | None, epoch: Epoch, change: SlotChange
) -> Transaction[Epoch | None]:
    """Append a version, or return the current epoch if nothing was appended."""
    appended = yield statement(SQLITE_APPEND, *VersionRow.from_value(new), epoch.id)
    if not appended:
        if (yield statement(IS_REMOVED, *new.key, new.version)):
            raise IntegrityBroken(REMOVED, retry_after_seconds=60)
        ((*found,),) = yield statement(READ_EPOCH)
        return Epoch(*found)
    yield change
    yield insert_audit(audit, change_id=appended[0][0])
    if idempotency is not None:
        yield statement(INSERT_IDEMPOTENCY, *IdempotencyRow.from_value(idempotency, saved_at=new.saved_at))
    return None


def _read_version(key: ConfigKey, row: Row) -> StoredVersion:
    version, kind, body = row
    return StoredVersion(key, version, Kind(kind), body)


def _read_version_with_key(key: ConfigKey, row: Row) -> VersionWithDataKey:
    version, kind, body, *wrapping = row
    if version is None:
        return VersionWithDataKey(None, None)
    return VersionWithDataKey(_read_version(key, (version, kind, body)), _read_data_key(key.tenant, wrapping))


def _read_encrypted(row: Row) -> EncryptedConfig:
    tenant, type_, version, saved_at, kind, body, *wrapping = row
    current = _read_version(ConfigKey(tenant, type_), (version, kind, body))
    return EncryptedConfig(saved_at, current, _read_data_key(tenant, wrapping))


def _read_data_key(tenant: str, row: Row) -> WrappedKey | None:
    data_key_id, master_key_id, wrapped = row
    return None if data_key_id is None else WrappedKey(data_key_id, "config", tenant, master_key_id, wrapped)


def _build_filters(filters: ConfigFilter, args: list[Any]) -> str:
    """Build the SQL conditions of filters. Append their values to the arguments."""
    parts = ""
    if filters.changed_since is not None:
        args.append(filters.changed_since)
        parts += f" AND c.saved_at >= ${len(args)}"
    if filters.unread_since is not None:
        args.append(filters.unread_since)
        parts += (
            f" AND c.saved_at < ${len(args)} AND NOT EXISTS (SELECT 1 FROM usage u WHERE u.tenant = c.tenant"
            f" AND u.integration_type = c.integration_type AND u.last_read_at >= ${len(args)})"
        )
    return parts


def _build_scope_conditions(scopes: Sequence[Sequence[Scope]], args: list[Any]) -> str:
    """Build SQL that requires one scope of each group. Append the values to the arguments.

    Scopes with exact names become lists, which cost a look-up for each row however many they are. Others become ranges.
    """
    return " AND ".join(_build_group_condition(group, args) for group in scopes)


def _build_group_condition(group: Sequence[Scope], args: list[Any]) -> str:
    def bind(*values: str) -> str:
        args.extend(values)
        return ", ".join(f"${number}" for number in range(len(args) - len(values) + 1, len(args) + 1))

    keys: list[ScopeBounds] = []
    tenants: dict[tuple[str, str], list[str]] = {}
    alternatives = []
    for first_tenant, last_tenant, first_type, last_type in dict.fromkeys(scope.find_bounds() for scope in group):
        if first_tenant == last_tenant and first_type == last_type:
            keys.append(ScopeBounds(first_tenant, last_tenant, first_type, last_type))
        elif first_tenant == last_tenant:
            tenants.setdefault((first_type, last_type), []).append(first_tenant)
        else:
            low, high = bind(first_tenant), bind(last_tenant)
            range_of_types = f"c.integration_type BETWEEN {bind(first_type)} AND {bind(last_type)}"
            alternatives.append(f"(c.tenant BETWEEN {low} AND {high} AND {range_of_types})")
    if keys:
        pairs = ", ".join(f"({bind(key.first_tenant, key.first_type)})" for key in keys)
        alternatives.append(f"(c.tenant, c.integration_type) IN (VALUES {pairs})")
    for (first_type, last_type), names in tenants.items():
        range_of_types = f"c.integration_type BETWEEN {bind(first_type)} AND {bind(last_type)}"
        alternatives.append(f"(c.tenant IN ({bind(*names)}) AND {range_of_types})")
    return _join_alternatives(alternatives)


def _join_alternatives(alternatives: Sequence[str]) -> str:
    """Join SQL conditions with OR, as a balanced tree: SQLite limits the depth of an expression to 1,000."""
    if len(alternatives) == 1:
        return alternatives[0]
    middle = len(alternatives) // 2
    return f"({_join_alternatives(alternatives[:middle])} OR {_join_alternatives(alternatives[middle:])})"
