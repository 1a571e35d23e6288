"""The database and the store of each feature, opened by the database URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from confide.audit.retention_store import AuditRetentionStore
from confide.audit.store import AuditStore, chain_all_entries
from confide.caching.stamp_file import FILE_NAME, StampFile
from confide.changes.feed import ChangeFeed
from confide.changes.sqlite_feed import SqliteChangeFeed
from confide.configs.retention_store import RetentionStore
from confide.configs.store import ConfigStore, PostgresqlConfigStore, SqliteConfigStore
from confide.crypto.store import DataKeyStore
from confide.database.database import Database
from confide.database.engine import Engine
from confide.database.seen_commits import SeenCommits
from confide.database.signed_rows import RowSigner
from confide.database.sqlite.database import SqliteDatabase
from confide.database.sqlite.engine import SqliteEngine
from confide.epoch import CurrentEpoch
from confide.identity.store import TokenStore, UserStore
from confide.integration_types.store import IntegrationTypeStore
from confide.reads.statistics_store import AccessStatisticsStore
from confide.telemetry.io_log import NO_IO_LOG, IoLog


@dataclass(frozen=True, slots=True)
class Stores:
    """The database and the stores on it.

    Every method of a store raises `DatabaseUnavailable` within 2 seconds if the database does not respond. A write may
    have been committed then.
    """

    database: Database
    engine: Engine
    epoch: CurrentEpoch
    rows: RowSigner
    seen: SeenCommits
    stamp_file: StampFile
    configs: ConfigStore
    change_feed: ChangeFeed
    users: UserStore
    tokens: TokenStore
    types: IntegrationTypeStore
    audit: AuditStore
    audit_retention: AuditRetentionStore
    statistics: AccessStatisticsStore
    retention: RetentionStore
    data_keys: DataKeyStore

    async def close(self) -> None:
        await self.change_feed.close()
        await self.database.close()


def open_stores(
    url: str,
    *,
    data: Path | None = None,
    is_unsafe: bool = False,
    is_unsafe_accepted: bool = False,
    pool_size: int = 8,
    io: IoLog = NO_IO_LOG,
) -> Stores:
    """Build the stores of a database URL, not yet connected.

    The URL is `sqlite:///path` or `postgresql://user:password@host/name`, with one or more hosts. With `is_unsafe`,
    SQLite does not wait for the disk. With either flag, a PostgreSQL server that may lose acknowledged saves is
    accepted.

    The processes of a machine share stamps: in the folder of the SQLite database, or in the data folder.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return _open_sqlite(Path(url.removeprefix("sqlite:///")), is_unsafe=is_unsafe, io=io)
    if scheme in ("postgresql", "postgres"):
        return _open_postgresql(
            url, is_unsafe_accepted=is_unsafe or is_unsafe_accepted, pool_size=pool_size, data=data, io=io
        )
    raise ValueError("A database URL starts with sqlite:/// or postgresql://.")


def _open_sqlite(path: Path, *, is_unsafe: bool, io: IoLog) -> Stores:
    # Beside the lock of the writers, which protects the marks in it.
    stamp_file = StampFile(path.with_name(FILE_NAME))
    engine = SqliteEngine(path, stamps=stamp_file.stamps, is_unsafe=is_unsafe, io=io)
    epoch, rows = CurrentEpoch(), RowSigner()
    database = SqliteDatabase(engine, epoch, rows, chain_audit_entries=lambda: chain_all_entries(has_xid=False))
    return _build_stores(
        database,
        engine,
        epoch,
        rows=rows,
        seen=SeenCommits(epoch),
        stamp_file=stamp_file,
        configs=SqliteConfigStore(engine, epoch),
        change_feed=SqliteChangeFeed(engine, epoch),
    )


def _open_postgresql(url: str, *, is_unsafe_accepted: bool, pool_size: int, data: Path | None, io: IoLog) -> Stores:
    from confide.changes.postgresql_feed import PostgresqlChangeFeed  # noqa: PLC0415 - an optional extra
    from confide.database.postgresql.database import PostgresqlDatabase  # noqa: PLC0415 - as above

    epoch, rows = CurrentEpoch(), RowSigner()
    seen = SeenCommits(epoch)
    stamp_file = StampFile(None if data is None else data / FILE_NAME)
    database = PostgresqlDatabase(
        url,
        epoch,
        rows,
        seen,
        stamps=stamp_file.stamps,
        is_unsafe_accepted=is_unsafe_accepted,
        pool_size=pool_size,
        chain_audit_entries=lambda: chain_all_entries(has_xid=True),
        io=io,
    )
    engine = database.engine
    configs = PostgresqlConfigStore(engine, epoch, seen, io=io)
    return _build_stores(
        database,
        engine,
        epoch,
        rows=rows,
        seen=seen,
        stamp_file=stamp_file,
        configs=configs,
        change_feed=PostgresqlChangeFeed(engine, epoch, seen=seen, continuity=database.continuity),
    )


def _build_stores(
    database: Database,
    engine: Engine,
    epoch: CurrentEpoch,
    *,
    rows: RowSigner,
    seen: SeenCommits,
    stamp_file: StampFile,
    configs: ConfigStore,
    change_feed: ChangeFeed,
) -> Stores:
    return Stores(
        database=database,
        engine=engine,
        epoch=epoch,
        rows=rows,
        seen=seen,
        stamp_file=stamp_file,
        configs=configs,
        change_feed=change_feed,
        users=UserStore(engine, rows),
        tokens=TokenStore(engine, rows),
        types=IntegrationTypeStore(engine, rows, epoch),
        audit=AuditStore(engine),
        audit_retention=AuditRetentionStore(engine),
        statistics=AccessStatisticsStore(engine),
        retention=RetentionStore(engine, rows),
        data_keys=DataKeyStore(engine, rows),
    )
