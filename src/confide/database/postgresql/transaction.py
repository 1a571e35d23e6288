"""Run statements and transactions on a PostgreSQL connection, and record each step as an I/O event."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any, TypeAlias, cast

import asyncpg

from confide.changes.model import Position
from confide.database.engine import (
    SCRIPT,
    AppendChange,
    Lock,
    Many,
    Script,
    Statement,
    Step,
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


async def run_transaction(
    io: IoLog, connection: Connection, work: Transaction[T], *, appended: list[SeenChange] | None = None
) -> T:
    """Run a transaction, and add its changes to `appended`. A timeout or cancellation terminates the connection."""
    transaction = connection.transaction()
    await measure(io, "begin", transaction.start())
    try:
        result = await _run_steps(io, connection, work, [] if appended is None else appended)
    except Exception:
        await measure(io, "rollback", transaction.rollback())
        raise
    except BaseException:
        # Do not wait for a rollback of a hung server. The server rolls back when the connection is gone.
        connection.terminate()
        raise
    await measure(io, "commit", transaction.commit())
    return result


async def _run_steps(io: IoLog, connection: Connection, work: Transaction[T], appended: list[SeenChange]) -> T:
    try:
        step = next(work)
        while True:
            step = work.send(await _run_step(io, connection, step, appended))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        work.close()


async def _run_step(io: IoLog, connection: Connection, step: Step, appended: list[SeenChange]) -> Rows:
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
