"""A server that cannot store: a hot standby behind the address of the primary, or a read-only database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from confide.errors import DatabaseReadOnly, DatabaseUnavailable
from confide.server.stores import Stores, open_stores
from support.app import ADMIN, RunningApp, build_settings, start_app
from support.postgres import LocalPostgresServer, find_distribution_binaries
from support.proxy import Proxy
from support.rows import KEY, append, build_version
from support.waiting import MAX_WAIT_SECONDS


@pytest.fixture(scope="module")
def primary() -> Iterator[LocalPostgresServer]:
    server = LocalPostgresServer(options=(), binaries=find_distribution_binaries())
    server.start()
    yield server
    server.remove()


async def wait_for_reasons(app: RunningApp, expected: list[str]) -> None:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while (await app.request("GET", "/health/ready")).json()["reasons"] != expected:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.05)


@pytest.fixture
async def app(tmp_path: Path, primary: LocalPostgresServer) -> AsyncIterator[tuple[RunningApp, str]]:
    url = primary.new_database()
    async with start_app(build_settings(tmp_path / "data", url)) as app:
        yield app, url.rsplit("/", 1)[1]


async def test_saves_work_again_after_a_read_only_episode(
    app: tuple[RunningApp, str], primary: LocalPostgresServer
) -> None:
    running, database = app
    token = await running.create_token("root", *ADMIN)
    await running.save(token, {"n": 1})
    primary.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await primary.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
    await wait_for_reasons(running, ["read-only"])
    refused = await running.save(token, {"n": 2})
    assert (refused.status_code, refused.json()["code"]) == (503, "store-unavailable")
    primary.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    await wait_for_reasons(running, [])
    assert (await running.save(token, {"n": 3})).status_code == 200


async def test_a_session_that_becomes_read_only_leaves_the_pool(
    app: tuple[RunningApp, str], primary: LocalPostgresServer
) -> None:
    running, _ = app
    token = await running.create_token("root", *ADMIN)
    await running.save(token, {"n": 1})
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    primary.execute("SELECT pg_reload_conf()")
    try:
        await wait_for_reasons(running, ["read-only"])
    finally:
        primary.execute("ALTER SYSTEM RESET default_transaction_read_only")
        primary.execute("SELECT pg_reload_conf()")
    await wait_for_reasons(running, [])
    assert (await running.save(token, {"n": 2})).status_code == 200


async def test_a_standby_behind_the_address_of_the_primary_is_never_used(primary: LocalPostgresServer) -> None:
    url = primary.new_database()
    standby = LocalPostgresServer(options=(), binaries=find_distribution_binaries(), primary=primary)
    standby.start()
    proxy = Proxy(primary.port)
    await proxy.start()
    stores: Stores | None = None
    try:
        stores = open_stores(primary.build_proxied_url(url, proxy.port))
        await stores.database.connect()
        await stores.database.migrate()
        await stores.database.open()
        assert await append(stores, build_version(1))
        await stores.change_feed.read()
        proxy.redirect(standby.port)
        errors = await collect_errors(stores)
        assert DatabaseReadOnly in errors
        proxy.redirect(primary.port)
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while True:
                try:
                    assert await append(stores, build_version(2))
                    break
                except DatabaseUnavailable:
                    await asyncio.sleep(0.05)
        assert [change.version for change in await stores.change_feed.read()] == [2]
    finally:
        if stores is not None:
            await stores.close()
        await proxy.stop()
        standby.remove()


async def collect_errors(stores: Stores) -> set[type[Exception]]:
    """Read for a while through every part that has a connection. Nothing may be returned."""
    errors: set[type[Exception]] = set()
    for _ in range(10):
        for call in (stores.configs.read(KEY), stores.change_feed.read(), stores.database.ping()):
            try:
                await call
            except DatabaseUnavailable as error:
                errors.add(type(error))
            else:
                pytest.fail("a standby was used")
        await asyncio.sleep(0.2)
    return errors
