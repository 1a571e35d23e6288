"""Change feed of PostgreSQL: the exact difference of two snapshots, read after notifications and heartbeats."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import asyncpg

from confide.changes.model import Change, ChangeFeedReset, Position
from confide.database.engine import find_operation
from confide.database.postgresql.engine import CONNECT_SECONDS, PostgresqlEngine
from confide.database.postgresql.transaction import Connection
from confide.database.postgresql.watermark import Watermark
from confide.errors import DatabaseUnavailable
from confide.telemetry.io_log import measure

CHANNEL = "confide"
HEARTBEAT_SECONDS = 0.3
# A slower read abandons its connection, because a stalled link stays open without an error.
READ_SECONDS = 0.4
# Notifications within this time share one read, and commits within it share one notification.
PACE_SECONDS = 0.01
# Beyond this number, clearing the cache is faster than applying all changes.
MAX_CHANGES = 20_000

# No upper bound, so that a long transaction delays nothing. The previous snapshot could not see transactions that
# were running or had not begun.
SINCE = """/* news.since */
    SELECT pg_current_snapshot()::text, (SELECT epoch FROM store),
           c.xid::text::bigint, c.id, c.kind, c.tenant, c.integration_type, c.version, c.subject
    FROM (SELECT 1) AS always
    LEFT JOIN changes c ON c.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                        OR c.xid = ANY(ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
    LIMIT $2
"""
# On another timeline (after a failover), changes that were read before may not exist.
TIMELINE = "/* news.timeline */ SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"
NOW = """/* news.now */
    SELECT pg_current_snapshot()::text, (SELECT epoch FROM store),
           coalesce((SELECT xid::text::bigint FROM changes ORDER BY xid DESC, id DESC LIMIT 1), 0)
"""
# The query planner cannot know how recent the snapshot is. Force it to use the index.
PREPARE = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan"
_DRIVER_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class PostgresqlChangeFeed:
    """Listens, notifies and reads on a dedicated connection. A new connection continues from the last snapshot."""

    def __init__(self, engine: PostgresqlEngine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._snapshot: str | None = None
        self._epoch = ""
        self._last_xid = 0
        # Timelines of the current connection and of the last one that read.
        self._timeline = self._known_timeline = ""
        self._wakeup = asyncio.Event()
        self._has_notification = False
        self._read_at = 0.0
        self._watermark = Watermark()

    async def read(self) -> list[Change]:
        self._wakeup.clear()
        try:
            if self._connection is None:
                async with asyncio.timeout(CONNECT_SECONDS):
                    self._connection = await self._connect()
            async with asyncio.timeout(READ_SECONDS):
                changes = await self._read(self._connection)
        except _DRIVER_ERRORS as error:
            await self.close()
            raise DatabaseUnavailable(str(error)) from error
        except asyncio.CancelledError:
            await self.close()
            raise
        finally:
            self._read_at = time.monotonic()
        return changes

    async def wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._wakeup.wait()
        pause = self._read_at + PACE_SECONDS - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)

    def watermark_age(self) -> float:
        return self._watermark.age_seconds()

    def notify(self) -> None:
        self._has_notification = True
        self._wakeup.set()

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _read(self, connection: Connection) -> list[Change]:
        if self._has_notification:
            # After the commit, because NOTIFY inside a transaction locks the whole database at commit.
            self._has_notification = False
            await measure(self._engine.io, "notify", connection.execute("NOTIFY " + CHANNEL))
        if self._snapshot is None:
            ((self._snapshot, self._epoch, self._last_xid),) = await self._fetch(connection, NOW)
            self._known_timeline = self._timeline
            return []
        rows = await self._fetch(connection, SINCE, self._snapshot, MAX_CHANGES + 1)
        self._engine.record_success()
        was = self._epoch, self._known_timeline
        self._snapshot, self._epoch = rows[0][:2]
        self._watermark.observe(rows[0][0], at=time.monotonic())
        self._known_timeline = self._timeline
        if len(rows) > MAX_CHANGES or was != (self._epoch, self._known_timeline):
            raise ChangeFeedReset
        changes = [Change(Position(*row[2:4]), *row[4:]) for row in rows if row[2] is not None]
        self._last_xid = max((change.position.xid for change in changes), default=self._last_xid)
        return changes

    async def _fetch(self, connection: Connection, sql: str, *args: Any) -> Any:
        return await measure(self._engine.io, find_operation(sql), connection.fetch(sql, *args))

    async def _connect(self) -> Connection:
        connection = await self._engine.connect()
        try:
            await measure(self._engine.io, "listen", connection.add_listener(CHANNEL, self._on_notification))
            await measure(self._engine.io, "prepare", connection.execute(PREPARE))
            ((self._timeline,),) = await self._fetch(connection, TIMELINE)
            # After a crash PostgreSQL reuses transaction ids.
            self._watermark = Watermark()
            if self._snapshot is not None:
                self._snapshot = _lower_snapshot(self._snapshot, self._last_xid + 1)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _on_notification(self, connection: Any, pid: int, _channel: str, _payload: object) -> None:
        # Ignore a closed connection: the read of the next connection returns its changes.
        if not connection.is_closed() and pid != connection.get_server_pid():
            self._wakeup.set()


def _lower_snapshot(snapshot: str, xid: int) -> str:
    """Return the snapshot (`xmin:xmax:running`) without all transactions from `xid` on.

    After a crash PostgreSQL reuses the ids of transactions that never reached the disk. So after each lost
    connection, everything after the last received change is read again.
    """
    xmin, xmax, running = snapshot.split(":")
    bound = min(int(xmax), xid)
    kept = [number for number in running.split(",") if number and int(number) < bound]
    return f"{min(int(xmin), bound)}:{bound}:{','.join(kept)}"
