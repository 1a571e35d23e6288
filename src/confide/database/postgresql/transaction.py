"""Run statements and transactions on a PostgreSQL connection, and record each step as an I/O event."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic_ns
from typing import Any, TypeAlias, cast

import asyncpg

from confide.caching.stamps import SlotChange, Stamps
from confide.changes.model import Position
from confide.database.engine import (
    SCRIPT,
    AppendChange,
    Lock,
    Many,
    Script,
    Statement,
    T,
    TableLock,
    Transaction,
    find_operation,
)
from confide.database.model import Rows
from confide.database.seen_commits import SeenChange
from confide.telemetry.io_log import IoLog, measure, record_failure

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"


async def fetch(
    io: IoLog, connection: Connection, sql: str, args: tuple[Any, ...], *, seconds: float | None = None
) -> Rows:
    """Run one statement and return its rows. A record of the driver can be read by position like any row."""
    began = monotonic_ns()
    try:
        records = await connection.fetch(sql, *args, timeout=seconds)
    except BaseException as error:
        record_failure(io, find_operation(sql), began, error)
        raise
    io.record(find_operation(sql), began, amount=len(records))
    return cast("Rows", records)


async def fetch_and_stamp(
    io: IoLog,
    connection: Connection,
    sql: str,
    args: tuple[Any, ...],
    *,
    stamps: Stamps,
    changes: Sequence[SlotChange],
    seconds: float | None = None,
) -> Rows:
    """Run one statement that writes, stamp the slots that it changed, and return its rows."""
    try:
        rows = await fetch(io, connection, sql, args, seconds=seconds)
    except BaseException:
        # The server may have committed it, or may still do so.
        stamps.stamp_unlocked(changes)
        raise
    await stamps.compare_and_stamp(changes)
    return rows


async def run_transaction(
    io: IoLog,
    connection: Connection,
    work: Transaction[T],
    *,
    stamps: Stamps,
    appended: list[SeenChange] | None = None,
) -> T:
    """Run a transaction, stamp the slots that it changed, and add its changes to `appended`.

    A timeout or cancellation terminates the connection.
    """
    transaction = connection.transaction()
    changes: list[SlotChange] = []
    await measure(io, "begin", transaction.start())
    try:
        result = await _run_steps(io, connection, work, changes, [] if appended is None else appended)
    except Exception:
        await measure(io, "rollback", transaction.rollback())
        raise
    except BaseException:
        # Do not wait for a rollback of a hung server. The server rolls back when the connection is gone.
        connection.terminate()
        raise
    try:
        await measure(io, "commit", transaction.commit())
    except BaseException:
        # The server may have committed it, or may still do so.
        stamps.stamp_unlocked(changes)
        raise
    await stamps.compare_and_stamp(changes)
    return result


async def _run_steps(
    io: IoLog, connection: Connection, work: Transaction[T], changes: list[SlotChange], appended: list[SeenChange]
) -> T:
    try:
        step = next(work)
        while True:
            if isinstance(step, SlotChange):
                changes.append(step)
                step = work.send([])
            else:
                step = work.send(await _run_step(io, connection, step, appended))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        work.close()


async def _run_step(
    io: IoLog,
    connection: Connection,
    step: Statement | AppendChange | Lock | TableLock | Script | Many,
    appended: list[SeenChange],
) -> Rows:
    match step:
        case Statement(sql, args):
            return await fetch(io, connection, sql, args)
        case AppendChange(sql, args, mac):
            ((change_id, xid),) = await fetch(io, connection, sql + ", xid::text::bigint", args)
            appended.append(SeenChange(Position(xid, change_id), mac))
            return [(change_id,)]
        case Lock(name):
            await measure(io, "wait lock", connection.execute(LOCK, "confide " + name))
        case TableLock(table):
            await measure(io, "wait lock", connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
        case Script(sql):
            await measure(io, SCRIPT, connection.execute(sql))
        case Many(sql, rows):
            await measure(io, find_operation(sql), connection.executemany(sql, rows))
    return []
