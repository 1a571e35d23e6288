"""News on PostgreSQL: the exact difference between two snapshots, read at each nudge and each heartbeat."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import asyncpg

from confide.changes.model import Change, ChangeFeedReset, Position
from confide.database.engine import operation_of
from confide.database.postgresql.engine import CONNECT_SECONDS, PostgresqlEngine
from confide.database.postgresql.transaction import Connection
from confide.database.postgresql.watermark import Watermark
from confide.errors import DatabaseUnavailable
from confide.telemetry.operations import measure

CHANNEL = "confide"
HEARTBEAT_SECONDS = 0.3
# How long one read may take before its connection is given up: a stalled link stays open and says nothing.
READ_SECONDS = 0.4
# Nudges that come closer together share one read, and what is told closer together one nudge.
PACE_SECONDS = 0.01
# Who has missed more than that forgets everything: that is sooner done than hearing of it all.
MAX_CHANGES = 20_000

# With no upper bound, so that a long transaction elsewhere delays nothing: what that snapshot could not see is what
# was not begun yet and what was under way.
SINCE = """/* news.since */
    SELECT pg_current_snapshot()::text, (SELECT epoch FROM store),
           c.xid::text::bigint, c.id, c.kind, c.tenant, c.integration_type, c.version, c.subject
    FROM (SELECT 1) AS always
    LEFT JOIN changes c ON c.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                        OR c.xid = ANY(ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
    LIMIT $2
"""
# Another timeline is another history of the same cluster: what was read before may never have been in it.
TIMELINE = "/* news.timeline */ SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"
NOW = """/* news.now */
    SELECT pg_current_snapshot()::text, (SELECT epoch FROM store),
           coalesce((SELECT xid::text::bigint FROM changes ORDER BY xid DESC, id DESC LIMIT 1), 0)
"""
# The planner cannot know how recent the snapshot is; it shall walk the index whatever it thinks.
PREPARE = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan"
_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class PostgresqlChangeFeed:
    """One connection of its own listens, tells and reads; after any trouble a new one reads on from the snapshot."""

    def __init__(self, engine: PostgresqlEngine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._snapshot: str | None = None
        self._epoch = ""
        self._last_xid = 0
        # Of the connection there is, and of the one that read last.
        self._timeline = self._known_timeline = ""
        self._nudged = asyncio.Event()
        self._has_notification = False
        self._read_at = 0.0
        self._watermark = Watermark()

    async def read(self) -> list[Change]:
        self._nudged.clear()
        try:
            if self._connection is None:
                async with asyncio.timeout(CONNECT_SECONDS):
                    self._connection = await self._connected()
            async with asyncio.timeout(READ_SECONDS):
                changes = await self._read(self._connection)
        except _AWAY as error:
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
                await self._nudged.wait()
        pause = self._read_at + PACE_SECONDS - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)

    def watermark_age(self) -> float:
        return self._watermark.age()

    def notify(self) -> None:
        self._has_notification = True
        self._nudged.set()

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _read(self, connection: Connection) -> list[Change]:
        if self._has_notification:
            # After the commit and never inside it: there it would take a lock of the whole database.
            self._has_notification = False
            await measure(self._engine.io, "notify", connection.execute("NOTIFY " + CHANNEL))
        if self._snapshot is None:
            ((self._snapshot, self._epoch, self._last_xid),) = await self._asked(connection, NOW)
            self._known_timeline = self._timeline
            return []
        rows = await self._asked(connection, SINCE, self._snapshot, MAX_CHANGES + 1)
        self._engine.note_answer()
        was = self._epoch, self._known_timeline
        self._snapshot, self._epoch = rows[0][:2]
        self._watermark.hear(rows[0][0], at=time.monotonic())
        self._known_timeline = self._timeline
        if len(rows) > MAX_CHANGES or was != (self._epoch, self._known_timeline):
            raise ChangeFeedReset
        changes = [Change(Position(*row[2:4]), *row[4:]) for row in rows if row[2] is not None]
        self._last_xid = max((change.position.xid for change in changes), default=self._last_xid)
        return changes

    async def _asked(self, connection: Connection, sql: str, *args: Any) -> Any:
        return await measure(self._engine.io, operation_of(sql), connection.fetch(sql, *args))

    async def _connected(self) -> Connection:
        connection = await self._engine.connect()
        try:
            await measure(self._engine.io, "listen", connection.add_listener(CHANNEL, self._hear))
            await measure(self._engine.io, "prepare", connection.execute(PREPARE))
            ((self._timeline,),) = await self._asked(connection, TIMELINE)
            # After a crash numbers are given again.
            self._watermark = Watermark()
            if self._snapshot is not None:
                self._snapshot = _lowered(self._snapshot, self._last_xid + 1)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _hear(self, connection: Any, pid: int, _channel: str, _payload: object) -> None:
        # What was under way when the connection was given up is heard by the next one's read.
        if not connection.is_closed() and pid != connection.get_server_pid():
            self._nudged.set()


def _lowered(snapshot: str, xid: int) -> str:
    """The snapshot, written `xmin:xmax:those under way`, as if nothing from that transaction on had been seen.

    A crash forgets which transactions were begun after the last one that is on the disk, and their numbers are
    given again. So after each lost connection everything after the last change that was heard is read again.
    """
    xmin, xmax, under_way = snapshot.split(":")
    bound = min(int(xmax), xid)
    kept = [number for number in under_way.split(",") if number and int(number) < bound]
    return f"{min(int(xmin), bound)}:{bound}:{','.join(kept)}"
