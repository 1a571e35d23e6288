"""The store on PostgreSQL: many processes, many machines."""

from __future__ import annotations

import asyncpg

from confide.operations import SILENT, IoLog
from confide.ports import Home, Unreachable, UnsafeDurability
from confide.storage.accounts import Accounts
from confide.storage.audits import Audits
from confide.storage.homes import settle
from confide.storage.keys import Keys
from confide.storage.parts import NOTHING_THERE, StoreParts
from confide.storage.postgres_configs import PostgresConfigs
from confide.storage.postgres_engine import PostgresEngine
from confide.storage.postgres_news import PostgresNews
from confide.storage.postgres_steps import Connection
from confide.storage.tokens import Tokens
from confide.storage.types import Types
from confide.storage.upkeep import Upkeep
from confide.storage.usage import Usage

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
        self.configs = PostgresConfigs(self._engine, io=io)
        self.accounts = Accounts(self._engine)
        self.tokens = Tokens(self._engine)
        self.types = Types(self._engine)
        self.audit = Audits(self._engine)
        self.usage = Usage(self._engine)
        self.upkeep = Upkeep(self._engine)
        self.keys = Keys(self._engine)
        self.news = PostgresNews(self._engine)

    async def connect(self) -> None:
        await self.ping()

    async def open(self) -> Home:
        await self.connect()
        try:
            epoch, has_begun_anew = await self._engine.transact_long(
                settle(self._home(), now=self.clock(), has_xid=True)
            )
        except asyncpg.UndefinedTableError as error:
            raise Unreachable(NOTHING_THERE) from error
        self._settled_home = self._home()
        durability = f"PostgreSQL, {', '.join(self._unsafe) if self._unsafe else 'fsync and synchronous commit'}"
        return Home(epoch, durability, is_unsafe=bool(self._unsafe), has_begun_anew=has_begun_anew, has_xid=True)

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
        return UnsafeDurability(sentence) if self._settled_home is None else Unreachable(sentence)
