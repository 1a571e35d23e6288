"""The sink `postgresql`. It runs an event loop of its own: the worker is a thread, the driver is asynchronous."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from confide.postgresql_client.connector import ConnectFailed, Connection, Connector, OpenConnection
from confide.telemetry.events import TABLE_COLUMNS, Batch, build_rows
from confide.telemetry.sinks.sink import SinkOptions

TABLE = "confide_io"
TIMEOUT_SECONDS = 10.0
# For each host.
CONNECT_SECONDS = 5.0
DELETE_EVERY_SECONDS = 600.0
# The sink limits time itself.
SETTINGS = """
    SET statement_timeout = 0;
    SET lock_timeout = 0;
    SET idle_session_timeout = 0;
    SET idle_in_transaction_session_timeout = 0
"""
SCHEMA = f"""
    CREATE TABLE IF NOT EXISTS {TABLE} (
        worker text NOT NULL, id bigint NOT NULL, parent bigint, operation text NOT NULL,
        began_ns bigint NOT NULL, ended_ns bigint NOT NULL, outcome text NOT NULL, amount bigint NOT NULL,
        request_id text, trace_id text, parent_span text, user_id bigint,
        began_at bigint NOT NULL, ended_at bigint NOT NULL
    );
    CREATE INDEX IF NOT EXISTS {TABLE}_ended_at ON {TABLE} USING brin (ended_at)
"""


class PostgresqlSink:
    """Rows in a table, written with COPY on one connection. After an error, the next write connects again."""

    name = "postgresql"

    def __init__(self, options: SinkOptions) -> None:
        self._connector = Connector(options.address, set_up=_set_up, connect_seconds=CONNECT_SECONDS)
        self._max_age_seconds = options.max_age_seconds
        self._loop = asyncio.new_event_loop()
        self._connection: Connection | None = None
        self._deleted_at = -DELETE_EVERY_SECONDS

    def write(self, batch: Batch) -> None:
        self._loop.run_until_complete(self._write(batch))
        if time.monotonic() - self._deleted_at >= DELETE_EVERY_SECONDS:
            self._deleted_at = time.monotonic()
            # The batch is written: an error here must not send it again. The next deletion catches up.
            with suppress(Exception):
                self._loop.run_until_complete(self._delete_old())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        # The transport closes in the next iteration of the loop.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _write(self, batch: Batch) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                connection = await self._connect()
                await connection.copy_records_to_table(TABLE, records=build_rows(batch), columns=TABLE_COLUMNS)
        except BaseException:
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            raise

    async def _delete_old(self) -> None:
        connection = await self._connect()
        oldest_us = int((time.time() - self._max_age_seconds) * 1e6)
        await connection.execute(f"DELETE FROM {TABLE} WHERE ended_at < $1", oldest_us, timeout=TIMEOUT_SECONDS)

    async def _connect(self) -> Connection:
        """Return the open connection, or open one."""
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await self._connector.connect()
            except ConnectFailed as failed:
                # The log shows the class of the error.
                raise failed.errors[0] from failed
        return self._connection


async def _set_up(connection: Connection, _open_another: OpenConnection) -> None:
    """Create the table. A standby rejects that, so the next host is tried."""
    await connection.execute(SETTINGS)
    await connection.execute(SCHEMA)
