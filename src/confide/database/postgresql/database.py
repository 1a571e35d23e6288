"""A PostgreSQL database, for processes on many machines."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from confide.caching.stamps import Stamps
from confide.clock import Clock, read_wall_clock
from confide.database.database import NO_SCHEMA, Database
from confide.database.engine import Transaction
from confide.database.errors import UnsafeDurability
from confide.database.identity import EntrySigner
from confide.database.model import DatabaseIdentity
from confide.database.postgresql.continuity import Continuity
from confide.database.postgresql.engine import PostgresqlEngine
from confide.database.postgresql.session import IS_READ_ONLY
from confide.database.postgresql.transaction import Connection
from confide.database.seen_commits import SeenCommits
from confide.database.signed_rows import RowSigner
from confide.epoch import CurrentEpoch
from confide.errors import DatabaseReadOnly, DatabaseUnavailable
from confide.telemetry.io_log import NO_IO_LOG, IoLog

CHECK = f"""/* store.greeting */
    SELECT (SELECT system_identifier FROM pg_control_system())::text
           || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())::text,
           current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'),
           current_setting('data_sync_retry'), current_setting('server_version_num')::int,
           {IS_READ_ONLY}
"""
PING = f"/* store.ping */ SELECT {IS_READ_ONLY}"
MIN_VERSION = 150_000
# These store every text. SQL_ASCII, the default of a cluster without a locale, stores the bytes of the client.
ENCODINGS = ("UTF8", "SQL_ASCII")
READ_ENCODING = """/* store.encoding */
    SELECT current_setting('server_encoding'), to_regclass('schema_migrations') IS NULL
"""


class PostgresqlDatabase(Database):
    """A database of a PostgreSQL cluster. Each new connection must lead to the same database and be durable."""

    def __init__(
        self,
        dsn: str,
        epoch: CurrentEpoch,
        rows: RowSigner,
        seen: SeenCommits,
        *,
        stamps: Stamps,
        is_unsafe_accepted: bool,
        pool_size: int,
        chain_audit_entries: Callable[[], Transaction[None]],
        clock: Clock = read_wall_clock,
        io: IoLog = NO_IO_LOG,
    ) -> None:
        self.engine = PostgresqlEngine(
            dsn, stamps=stamps, size=pool_size, check_connection=self._check_connection, seen=seen, io=io
        )
        super().__init__(self.engine, epoch, rows, chain_audit_entries=chain_audit_entries, clock=clock)
        self.continuity = Continuity(
            epoch, seen, rows, stamps=stamps, io=io, clock=clock, on_failover=self.engine.leave_old_primary
        )
        self._stamps = stamps
        self._is_unsafe_accepted = is_unsafe_accepted
        self._location = ""
        self._opened_location: str | None = None
        self._unsafe: tuple[str, ...] = ()

    async def connect(self) -> None:
        # The first connection has the time limit of the URL, not that of a query.
        async with self.engine.acquire_connection(has_deadline=False):
            pass
        await self.ping()

    async def ping(self) -> None:
        ((is_read_only,),) = await self.engine.query(PING)
        if is_read_only:
            raise self.engine.reject_read_only()

    async def check_storage(self) -> None:
        await self.engine.check_storage()

    async def migrate(self) -> list[str]:
        ((encoding, is_new),) = await self.engine.query(READ_ENCODING)
        if is_new and encoding not in ENCODINGS:
            raise UnsafeDurability(
                f"A database with the encoding {encoding} cannot store every text."
                " Create it with TEMPLATE template0 ENCODING 'UTF8'."
            )
        return await super().migrate()

    async def open(self) -> DatabaseIdentity:
        await self.connect()
        # Only SQLite has marks. They remain if this data folder had a SQLite database whose writer died.
        self._stamps.clear_marks(must_search=True)
        try:
            status = await self.engine.transact_long(self._determine_epoch())
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
            raise DatabaseUnavailable(NO_SCHEMA) from error
        self._epoch.adopt(status.epoch)
        self._opened_location = self.locate()
        durability = f"PostgreSQL, {', '.join(self._unsafe) if self._unsafe else 'fsync and synchronous commit'}"
        return DatabaseIdentity(
            status.epoch,
            durability,
            is_unsafe=bool(self._unsafe),
            is_new_epoch=status.is_new_epoch,
            has_xid=True,
        )

    async def close(self) -> None:
        await self.engine.close()

    def locate(self) -> str:
        return self._location

    def sign_losses(self, sign: EntrySigner) -> None:
        self.continuity.sign = sign

    async def _check_connection(self, connection: Connection) -> None:
        row = await connection.fetchrow(CHECK)
        location, fsync, commit, pages, retry, version, is_read_only = row or ("", "", "", "", "", 0, True)
        if version < MIN_VERSION:
            raise UnsafeDurability("Use PostgreSQL 15 or newer.")
        if is_read_only:
            raise DatabaseReadOnly
        settings = {"fsync": fsync, "full_page_writes": pages, "synchronous_commit": commit}
        unsafe = [f"{name}=off" for name, value in settings.items() if value == "off"]
        unsafe += ["data_sync_retry=on"] if retry == "on" else []
        if unsafe and not self._is_unsafe_accepted:
            raise self._build_error(f"PostgreSQL may lose acknowledged saves: {', '.join(unsafe)}.")
        self._unsafe, self._location = tuple(unsafe), location
        if self._opened_location not in (None, location):
            raise self._build_error("The connection now leads to another database. Restart to begin a new epoch.")
        if self._opened_location is not None:
            await self.continuity.check(connection)

    def _build_error(self, sentence: str) -> Exception:
        # Before `open` succeeds this ends the start of the service. Later the database counts as unavailable.
        if self._opened_location is None:
            return UnsafeDurability(sentence)
        return DatabaseUnavailable(sentence)
