"""A server that accepts fewer connections than the pool may open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest

from confide.context import set_deadline
from confide.database.model import Rows
from confide.database.postgresql.engine import PostgresqlEngine
from confide.errors import DatabaseReadOnly, DatabaseUnavailable
from confide.server.stores import Stores, open_stores
from support.distribution import DistributionServer
from support.rows import KEY, append, build_version
from support.waiting import MAX_WAIT_SECONDS, wait_until_async

BUSY = "SELECT pg_sleep(0.01)"
HOLD = "SELECT pg_sleep(60)"


@asynccontextmanager
async def open_limited(server: DistributionServer, *, limit: int) -> AsyncIterator[Stores]:
    """Open a database that accepts that many connections of its role."""
    url = server.new_database()
    server.execute(f"ALTER DATABASE {url.rsplit('/', 1)[1]} CONNECTION LIMIT {limit}")
    # A busy machine may need longer than the service waits.
    set_deadline(time.monotonic() + MAX_WAIT_SECONDS)
    stores = open_stores(f"{url}?connect_timeout={MAX_WAIT_SECONDS:.0f}", pool_size=8)
    try:
        await stores.database.connect()
        await stores.database.migrate()
        await stores.database.open()
        yield stores
    finally:
        await stores.close()


def count_waiting(stores: Stores) -> int:
    assert isinstance(stores.engine, PostgresqlEngine)
    return len(stores.engine._waiting)


async def break_connection(server: DistributionServer, holding: asyncio.Task[Rows]) -> None:
    """End the session of the call that holds a connection."""
    assert await server.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = $1", HOLD)
    with pytest.raises(DatabaseUnavailable, match="terminating connection"):
        await holding


async def test_calls_share_the_connections_that_the_server_accepts(distribution: DistributionServer) -> None:
    async with open_limited(distribution, limit=3) as stores:
        await stores.change_feed.read()
        assert await append(stores, build_version(1))
        for _ in range(5):
            await asyncio.gather(*(stores.engine.query(BUSY) for _ in range(30)))
        read = await stores.configs.read(KEY)
        assert read is not None


async def test_a_call_that_waits_for_a_connection_opens_one_after_the_other_broke(
    distribution: DistributionServer,
) -> None:
    async with open_limited(distribution, limit=1) as stores:
        holding = asyncio.create_task(stores.engine.query(HOLD))
        waiting = [asyncio.create_task(stores.engine.query(BUSY)) for _ in range(3)]
        await wait_until_async(lambda: count_waiting(stores) == 3, "the calls wait")
        await break_connection(distribution, holding)
        await asyncio.gather(*waiting)


async def test_a_call_that_gives_up_waiting_leaves_the_connection_to_the_next(distribution: DistributionServer) -> None:
    async with open_limited(distribution, limit=1) as stores:
        holding = asyncio.create_task(stores.engine.query("SELECT pg_sleep(1)"))
        given_up, waiting = (asyncio.create_task(stores.engine.query(BUSY)) for _ in range(2))
        await wait_until_async(lambda: count_waiting(stores) == 2, "the calls wait")
        given_up.cancel()
        await asyncio.gather(holding, waiting)
        assert given_up.cancelled()


async def test_a_call_that_cannot_open_a_connection_leaves_that_to_the_next(distribution: DistributionServer) -> None:
    async with open_limited(distribution, limit=1) as stores:
        holding = asyncio.create_task(stores.engine.query(HOLD))
        waiting = [asyncio.create_task(stores.engine.query(BUSY)) for _ in range(3)]
        await wait_until_async(lambda: count_waiting(stores) == 3, "the calls wait")
        distribution.execute("ALTER ROLE confide SET default_transaction_read_only = on")
        try:
            await break_connection(distribution, holding)
            found = await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            distribution.execute("ALTER ROLE confide RESET default_transaction_read_only")
        assert [type(error) for error in found] == [DatabaseReadOnly] * 3


async def test_a_call_that_gives_up_opening_a_connection_leaves_that_to_the_next(
    distribution: DistributionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening: list[asyncio.Task[Any] | None] = []

    async def hang() -> NoReturn:
        opening.append(asyncio.current_task())
        await asyncio.Event().wait()
        raise AssertionError

    async with open_limited(distribution, limit=1) as stores:
        holding = asyncio.create_task(stores.engine.query(HOLD))
        calls = [asyncio.create_task(stores.engine.query(BUSY)) for _ in range(2)]
        await wait_until_async(lambda: count_waiting(stores) == 2, "the calls wait")
        with monkeypatch.context() as patch:
            patch.setattr(stores.engine, "connect", hang)
            await break_connection(distribution, holding)
            await wait_until_async(lambda: opening, "a call opens a connection")
        # The order of the queue is that in which the server refused the connections.
        given_up, waiting = sorted(calls, key=lambda call: call not in opening)
        given_up.cancel()
        await waiting


async def test_without_any_connection_the_database_is_unavailable(distribution: DistributionServer) -> None:
    with pytest.raises(DatabaseUnavailable, match="too many connections"):
        async with open_limited(distribution, limit=0):
            pytest.fail("the database accepted a connection")
