"""Events in a table of PostgreSQL, by COPY, on a connection and a loop of the sink's own."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import asyncpg

from confide.telemetry.events import COLUMNS, Batch, rows

TABLE = "confide_io"
SECONDS = 10.0
ERASE_EVERY_SECONDS = 600.0
SCHEMA = f"""
    CREATE TABLE IF NOT EXISTS {TABLE} (
        worker text NOT NULL, id bigint NOT NULL, parent bigint, operation text NOT NULL,
        began_ns bigint NOT NULL, ended_ns bigint NOT NULL, outcome text NOT NULL, amount bigint NOT NULL,
        request_id text, trace_id text, parent_span text, user_id bigint,
        began_at bigint NOT NULL, ended_at bigint NOT NULL
    );
    CREATE INDEX IF NOT EXISTS {TABLE}_ended_at ON {TABLE} USING brin (ended_at)
"""


class PostgresSink:
    """One connection; after any trouble a new one at the next try."""

    name = "postgresql"

    def __init__(self, dsn: str, *, most_seconds: int) -> None:
        self._dsn = dsn
        self._most_seconds = most_seconds
        self._loop = asyncio.new_event_loop()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._erased_at = -ERASE_EVERY_SECONDS

    def write(self, batch: Batch) -> None:
        self._loop.run_until_complete(self._write(batch))
        if time.monotonic() - self._erased_at >= ERASE_EVERY_SECONDS:
            self._erased_at = time.monotonic()
            # Apart from the write, which is done: what is not erased now is erased the next time.
            with suppress(Exception):
                self._loop.run_until_complete(self._erase())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        # What is terminated is closed in the loop's next round.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _write(self, batch: Batch) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                connection = await self._opened()
                await connection.copy_records_to_table(TABLE, records=rows(batch), columns=COLUMNS)
        except BaseException:
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            raise

    async def _erase(self) -> None:
        connection = await self._opened()
        before = int((time.time() - self._most_seconds) * 1e6)
        await connection.execute(f"DELETE FROM {TABLE} WHERE ended_at < $1", before, timeout=SECONDS)

    async def _opened(self) -> asyncpg.Connection[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._dsn, timeout=SECONDS)
            await self._connection.execute(SCHEMA)
        return self._connection
