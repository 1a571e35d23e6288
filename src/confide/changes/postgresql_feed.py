"""The change feed on PostgreSQL. Each read returns the exact difference of two snapshots."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from confide.changes.model import Change, ChangeFeedReset, Position
from confide.database.engine import find_operation
from confide.database.postgresql.continuity import TIMELINE, Continuity
from confide.database.postgresql.engine import PostgresqlEngine
from confide.database.postgresql.errors import DRIVER_ERRORS, translate_error
from confide.database.postgresql.session import IS_READ_ONLY, apply_settings
from confide.database.postgresql.transaction import Connection
from confide.database.postgresql.watermark import Watermark
from confide.database.seen_commits import SeenChange, SeenCheckpoint, SeenCommits
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
    SELECT pg_current_snapshot()::text, epoch, epoch_number, {IS_READ_ONLY}, {TIMELINE},
           c.xid::text::bigint, c.id, (SELECT a.mac FROM audit a WHERE a.xid = c.xid AND a.change_id = c.id LIMIT 1),
           c.kind, c.tenant, c.integration_type, c.version, c.subject
    FROM store
    LEFT JOIN changes c ON c.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                        OR c.xid = ANY(ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
    LIMIT $2
"""
# The end of the log, with the latest change and the latest checkpoint of the audit hash chain.
NOW = f"""/* news.now */
    SELECT pg_current_snapshot()::text, epoch, epoch_number, {IS_READ_ONLY}, {TIMELINE},
           c.xid::text::bigint, c.id, (SELECT a.mac FROM audit a WHERE a.xid = c.xid AND a.change_id = c.id LIMIT 1),
           k.number, k.link
    FROM store
    LEFT JOIN LATERAL (SELECT xid, id FROM changes ORDER BY xid DESC, id DESC LIMIT 1) c ON TRUE
    LEFT JOIN LATERAL (SELECT number, link FROM checkpoints ORDER BY number DESC LIMIT 1) k ON TRUE
"""
# PostgreSQL cannot know how recent the snapshot is. Make it use the index.
SETTINGS = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan"}


class PostgresqlChangeFeed:
    """Listens, notifies and reads on its own connection. A new connection continues from the last snapshot."""

    def __init__(
        self, engine: PostgresqlEngine, epoch: CurrentEpoch, *, seen: SeenCommits, continuity: Continuity
    ) -> None:
        self._engine = engine
        self._current_epoch = epoch
        self._seen = seen
        self._continuity = continuity
        self.connection_number = 0
        self._connection: Connection | None = None
        self._snapshot: str | None = None
        self._epoch = UNKNOWN_EPOCH
        self._last_xid = 0
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
            translated = translate_error(error)
            if isinstance(translated, DatabaseUnavailable):
                raise translated from error
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
            (row,) = await self._fetch(connection, NOW)
            self._epoch = self._accept_server(row)
            self._snapshot, self._last_xid = row[0], row[5] or 0
            self._seen.add(_list_seen([row]), epoch_id=self._epoch.id)
            if row[8] is not None:
                self._seen.add_checkpoint(SeenCheckpoint(*row[8:]), epoch=self._epoch)
            return []
        await self._engine.check_session(connection)
        rows = await self._fetch(connection, SINCE, self._snapshot, MAX_CHANGES + 1)
        previous, self._epoch = self._epoch, self._accept_server(rows[0])
        self._snapshot = rows[0][0]
        self._watermark.observe(rows[0][0], at=time.monotonic())
        self._seen.add(_list_seen(rows), epoch_id=self._epoch.id)
        if len(rows) > MAX_CHANGES or previous != self._epoch:
            raise ChangeFeedReset
        changes = [Change(Position(*row[5:7]), *row[8:]) for row in rows if row[5] is not None]
        self._last_xid = max((change.position.xid for change in changes), default=self._last_xid)
        return changes

    def _accept_server(self, row: Any) -> Epoch:
        """Adopt the epoch of a server. Raises `DatabaseUnavailable` unless it is the primary.

        Only the primary proves that the caches are current. What another server returns may be old.
        """
        _, epoch_id, epoch_number, is_read_only, timeline, *_ = row
        if is_read_only:
            raise self._engine.reject_read_only()
        epoch = Epoch(epoch_id, epoch_number)
        self._continuity.require_successor(timeline, epoch)
        self._engine.record_success()
        self._current_epoch.adopt(epoch)
        return epoch

    async def _fetch(self, connection: Connection, sql: str, *args: Any) -> Any:
        return await measure(self._engine.io, find_operation(sql), connection.fetch(sql, *args))

    async def _connect(self) -> Connection:
        connection = await self._engine.connect()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await measure(self._engine.io, "listen", connection.add_listener(CHANNEL, self._on_notification))
                await measure(self._engine.io, "prepare", apply_settings(connection, SETTINGS))
            # After a crash, PostgreSQL reuses transaction IDs.
            self._watermark = Watermark()
            if self._snapshot is not None:
                self._snapshot = _lower_snapshot(self._snapshot, self._last_xid + 1)
        except BaseException:
            connection.terminate()
            raise
        self.connection_number += 1
        return connection

    def _on_notification(self, connection: Any, pid: int, _channel: str, _payload: object) -> None:
        # Ignore a closed connection. The next connection reads its changes.
        if not connection.is_closed() and pid != connection.get_server_pid():
            self._wakeup.set()


def _list_seen(rows: Any) -> list[SeenChange]:
    """List the changes of rows that have an audit entry, in the order of their positions."""
    return sorted(SeenChange(Position(*row[5:7]), bytes(row[7])) for row in rows if row[7] is not None)


def _lower_snapshot(snapshot: str, xid: int) -> str:
    """Lower a snapshot (`xmin:xmax:running`) so that it sees no transaction from `xid` on.

    After a crash, PostgreSQL reuses the IDs of transactions that never reached the disk. So after a lost connection,
    the feed reads all changes after the last received one again.
    """
    xmin, xmax, running = snapshot.split(":")
    bound = min(int(xmax), xid)
    kept = [number for number in running.split(",") if number and int(number) < bound]
    return f"{min(int(xmin), bound)}:{bound}:{','.join(kept)}"
