"""The change feed on PostgreSQL. Each read returns the exact difference of two snapshots."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from confide.changes.model import Change, ChangeFeedReset, Position
from confide.database.engine import find_operation
from confide.database.postgresql.engine import PostgresqlEngine
from confide.database.postgresql.errors import DRIVER_ERRORS
from confide.database.postgresql.session import IS_READ_ONLY, apply_settings
from confide.database.postgresql.transaction import Connection
from confide.database.postgresql.watermark import Watermark
from confide.epoch import UNKNOWN_EPOCH, CurrentEpoch, Epoch
from confide.errors import DatabaseUnavailable, describe_error
from confide.postgresql_client.address import CONNECT_SECONDS
from confide.telemetry.io_log import measure

CHANNEL = "confide"
HEARTBEAT_SECONDS = 0.3
# A slower read closes its connection, because a stalled connection stays open without an error.
READ_SECONDS = 0.4
# After a timeout the limit doubles up to this, so that a slow server is read at last.
MAX_READ_SECONDS = 10.0
# The pause between two reads. Notifications and commits within this time share one read and one notification.
PACE_SECONDS = 0.01
# Above this number, clearing the caches is faster than applying the changes.
MAX_CHANGES = 20_000

# Transactions that were running at the previous snapshot or began after it. A long transaction delays no other.
SINCE = f"""/* news.since */
    SELECT pg_current_snapshot()::text, epoch, epoch_number,
           {IS_READ_ONLY},
           c.xid::text::bigint, c.id, c.kind, c.tenant, c.integration_type, c.version, c.subject
    FROM store
    LEFT JOIN changes c ON c.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                        OR c.xid = ANY(ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
    LIMIT $2
"""
# On another timeline (after a failover), changes that were read before may not exist.
TIMELINE = "/* news.timeline */ SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"
NOW = """/* news.now */
    SELECT pg_current_snapshot()::text, epoch, epoch_number,
           coalesce((SELECT xid::text::bigint FROM changes ORDER BY xid DESC, id DESC LIMIT 1), 0)
    FROM store
"""
# PostgreSQL cannot know how recent the snapshot is. Make it use the index.
SETTINGS = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan"}


class PostgresqlChangeFeed:
    """Listens, notifies and reads on its own connection. A new connection continues from the last snapshot."""

    def __init__(self, engine: PostgresqlEngine, epoch: CurrentEpoch) -> None:
        self._engine = engine
        self._current_epoch = epoch
        self._connection: Connection | None = None
        self._snapshot: str | None = None
        self._epoch = UNKNOWN_EPOCH
        self._last_xid = 0
        # The timelines of the current connection and of the last read.
        self._timeline = self._read_timeline = ""
        self._wakeup = asyncio.Event()
        self._has_notification = False
        self._read_at = 0.0
        self._read_seconds = READ_SECONDS
        self._watermark = Watermark()

    async def read(self) -> list[Change]:
        self._wakeup.clear()
        began = time.monotonic()
        try:
            if self._connection is None:
                self._connection = await self._connect()
            async with asyncio.timeout(self._read_seconds):
                changes = await self._read(self._connection)
            self._read_seconds = READ_SECONDS
        except TimeoutError as error:
            self._read_seconds = min(2 * self._read_seconds, MAX_READ_SECONDS)
            await self._leave_connection(began)
            raise DatabaseUnavailable("The change feed was not read in time.") from error
        except DRIVER_ERRORS as error:
            await self._leave_connection(began)
            raise DatabaseUnavailable(describe_error(error)) from error
        except DatabaseUnavailable:
            # Not even a new connection: the database is not slow but away, so the next read needs no more time.
            self._read_seconds = READ_SECONDS
            await self.close()
            raise
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

    def compute_watermark_age_seconds(self) -> float:
        return self._watermark.compute_age_seconds()

    def notify(self) -> None:
        self._has_notification = True
        self._wakeup.set()

    async def _leave_connection(self, began: float) -> None:
        """Close a connection that failed. Idle connections that have not responded since may lead nowhere too."""
        self._engine.close_idle(unused_since=began)
        await self.close()

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _read(self, connection: Connection) -> list[Change]:
        if self._has_notification:
            # Outside the transaction of the save: NOTIFY in a transaction takes a lock on the whole database at commit.
            self._has_notification = False
            await measure(self._engine.io, "notify", connection.execute("NOTIFY " + CHANNEL))
        if self._snapshot is None:
            ((self._snapshot, *epoch, self._last_xid),) = await self._fetch(connection, NOW)
            self._epoch = Epoch(*epoch)
            self._current_epoch.adopt(self._epoch)
            self._read_timeline = self._timeline
            return []
        rows = await self._fetch(connection, SINCE, self._snapshot, MAX_CHANGES + 1)
        if rows[0][3]:
            # What this server returns may be old. Only a primary proves that the caches are current.
            raise self._engine.reject_read_only()
        self._engine.record_success()
        previous = self._epoch, self._read_timeline
        self._snapshot, self._epoch = rows[0][0], Epoch(*rows[0][1:3])
        self._current_epoch.adopt(self._epoch)
        self._watermark.observe(rows[0][0], at=time.monotonic())
        self._read_timeline = self._timeline
        if len(rows) > MAX_CHANGES or previous != (self._epoch, self._read_timeline):
            raise ChangeFeedReset
        changes = [Change(Position(*row[4:6]), *row[6:]) for row in rows if row[4] is not None]
        self._last_xid = max((change.position.xid for change in changes), default=self._last_xid)
        return changes

    async def _fetch(self, connection: Connection, sql: str, *args: Any) -> Any:
        return await measure(self._engine.io, find_operation(sql), connection.fetch(sql, *args))

    async def _connect(self) -> Connection:
        connection = await self._engine.connect()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await measure(self._engine.io, "listen", connection.add_listener(CHANNEL, self._on_notification))
                await measure(self._engine.io, "prepare", apply_settings(connection, SETTINGS))
                ((self._timeline,),) = await self._fetch(connection, TIMELINE)
            # After a crash, PostgreSQL reuses transaction IDs.
            self._watermark = Watermark()
            if self._snapshot is not None:
                self._snapshot = _lower_snapshot(self._snapshot, self._last_xid + 1)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _on_notification(self, connection: Any, pid: int, _channel: str, _payload: object) -> None:
        # Ignore a closed connection. The next connection reads its changes.
        if not connection.is_closed() and pid != connection.get_server_pid():
            self._wakeup.set()


def _lower_snapshot(snapshot: str, xid: int) -> str:
    """Lower a snapshot (`xmin:xmax:running`) so that it sees no transaction from `xid` on.

    After a crash, PostgreSQL reuses the IDs of transactions that never reached the disk. So after a lost connection,
    the feed reads all changes after the last received one again.
    """
    xmin, xmax, running = snapshot.split(":")
    bound = min(int(xmax), xid)
    kept = [number for number in running.split(",") if number and int(number) < bound]
    return f"{min(int(xmin), bound)}:{bound}:{','.join(kept)}"
