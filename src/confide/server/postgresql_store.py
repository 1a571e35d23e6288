"""The store on PostgreSQL: many processes, many machines."""

from __future__ import annotations

import asyncpg

from confide.audit.store import AuditStore
from confide.changes.postgresql_feed import PostgresqlChangeFeed
from confide.configs.postgresql_store import PostgresqlConfigStore
from confide.configs.retention_store import RetentionStore
from confide.crypto.store import DataKeyStore
from confide.database.errors import UnsafeDurability
from confide.database.identity import settle
from confide.database.model import DatabaseIdentity
from confide.database.postgresql.engine import PostgresEngine
from confide.database.postgresql.transaction import Connection
from confide.errors import DatabaseUnavailable
from confide.identity.token_store import TokenStore
from confide.identity.user_store import UserStore
from confide.integration_types.store import IntegrationTypeStore
from confide.reads.statistics_store import AccessStatisticsStore
from confide.server.store_parts import NOTHING_THERE, StoreParts
from confide.telemetry.operations import SILENT, IoLog

GREETING = """/* store.greeting */
    SELECT (SELECT system_identifier FROM pg_control_system())::text
           || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())::text,
           current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'),
           current_setting('data_sync_retry'), current_setting('server_version_num')::int
"""
OLDEST = 150_000


class PostgresStore(StoreParts):
    """Everything in one database. Each new connection is asked where it leads and how durable that is."""

    def __init__(self, dsn: str, *, accepts_unsafe: bool, pool_size: int, io: IoLog = SILENT) -> None:
        self._engine: PostgresEngine = PostgresEngine(dsn, size=pool_size, greet=self._greet, io=io)
        self._accepts_unsafe = accepts_unsafe
        self._known_home = ""
        self._settled_home: str | None = None
        self._unsafe: tuple[str, ...] = ()
        self.configs = PostgresqlConfigStore(self._engine, io=io)
        self.accounts = UserStore(self._engine)
        self.tokens = TokenStore(self._engine)
        self.types = IntegrationTypeStore(self._engine)
        self.audit = AuditStore(self._engine)
        self.usage = AccessStatisticsStore(self._engine)
        self.upkeep = RetentionStore(self._engine)
        self.keys = DataKeyStore(self._engine)
        self.news = PostgresqlChangeFeed(self._engine)

    async def connect(self) -> None:
        await self.ping()

    async def open(self) -> DatabaseIdentity:
        await self.connect()
        try:
            epoch, has_begun_anew = await self._engine.transact_long(
                settle(self._home(), now=self.clock(), has_xid=True)
            )
        except asyncpg.UndefinedTableError as error:
            raise DatabaseUnavailable(NOTHING_THERE) from error
        self._settled_home = self._home()
        durability = f"PostgreSQL, {', '.join(self._unsafe) if self._unsafe else 'fsync and synchronous commit'}"
        return DatabaseIdentity(
            epoch, durability, is_unsafe=bool(self._unsafe), has_begun_anew=has_begun_anew, has_xid=True
        )

    async def close(self) -> None:
        await self.news.close()
        await self._engine.close()

    def _home(self) -> str:
        return self._known_home

    async def _greet(self, connection: Connection) -> None:
        row = await connection.fetchrow(GREETING)
        home, fsync, commit, pages, retry, version = row or ("", "", "", "", "", 0)
        if version < OLDEST:
            raise UnsafeDurability("PostgreSQL 15 or newer is needed.")
        settings = {"fsync": fsync, "full_page_writes": pages, "synchronous_commit": commit}
        unsafe = [f"{name}=off" for name, value in settings.items() if value == "off"]
        unsafe += ["data_sync_retry=on"] if retry == "on" else []
        if unsafe and not self._accepts_unsafe:
            raise self._refused(f"PostgreSQL may lose acknowledged saves: {', '.join(unsafe)}.")
        self._unsafe, self._known_home = tuple(unsafe), home
        if self._settled_home not in (None, home):
            raise self._refused("The connection now leads to another database; restart to begin a new epoch.")

    def _refused(self, sentence: str) -> Exception:
        # At the start it ends the start; while running it is a store that cannot be used.
        return UnsafeDurability(sentence) if self._settled_home is None else DatabaseUnavailable(sentence)
