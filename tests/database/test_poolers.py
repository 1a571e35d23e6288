"""PgBouncer between Confide and PostgreSQL: session mode works, and the modes that share sessions are rejected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from confide.errors import SessionsShared
from confide.names import ConfigKey
from confide.server.stores import open_stores
from support.app import ADMIN, TYPE, RunningApp, build_settings, start_app
from support.cluster import run_cluster
from support.pgbouncer import PgBouncer
from support.postgres import LocalPostgresServer, find_distribution_binaries
from support.processes import run_confide
from support.rows import append, build_version
from support.waiting import MAX_WAIT_SECONDS
from support.writers import merge_markers

KEY = ConfigKey("acme", TYPE)
OTHER_CLIENTS = 4
# Handing out servers in turn, with several of them, is the hardest case for the check.
ROUND_ROBIN = "server_round_robin = 1\nmin_pool_size = 3"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalPostgresServer]:
    server = LocalPostgresServer(options=(), binaries=find_distribution_binaries())
    server.start()
    yield server
    server.remove()


@pytest.fixture
def start_pooler(server: LocalPostgresServer) -> Iterator[Callable[..., PgBouncer]]:
    started: list[PgBouncer] = []

    def start(mode: str, settings: str = "") -> PgBouncer:
        started.append(PgBouncer(server, mode=mode, settings=settings))
        return started[-1]

    yield start
    for pooler in started:
        pooler.remove()


async def test_session_mode_works_with_several_processes(
    tmp_path: Path, server: LocalPostgresServer, start_pooler: Callable[..., PgBouncer]
) -> None:
    url = start_pooler("session").build_url(server.new_database())
    async with run_cluster(tmp_path, 2, database=url) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        params = {"tenant": KEY.tenant, "integration_type": KEY.integration_type}
        async with services[0].async_client(token) as one, services[1].async_client(token) as other:
            await merge_markers(one, KEY, "first", times=3)
            assert (await other.get("/config", params=params)).headers["config-version"] == "3"
            # A save of one process reaches the cache of the other one through LISTEN and NOTIFY.
            await merge_markers(one, KEY, "second", times=1)
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while (await other.get("/config", params=params)).headers["config-version"] != "4":  # noqa: ASYNC110 - over HTTP
                    await asyncio.sleep(0.02)
            assert (await other.get("/health/ready")).json() == {"status": "ok", "reasons": []}
        assert [await asyncio.to_thread(service.stop) for service in services] == [0, 0]


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("migrate",), ("backup", "file")])
def test_a_mode_that_shares_sessions_is_rejected_in_one_sentence(
    tmp_path: Path,
    server: LocalPostgresServer,
    start_pooler: Callable[..., PgBouncer],
    mode: str,
    command: tuple[str, ...],
) -> None:
    url = start_pooler(mode).build_url(server.new_database())
    done = run_confide(*command, cwd=tmp_path, env={"CONFIDE_DATABASE": url})
    assert (done.returncode, done.stderr.strip().splitlines()) == (4, [f"confide: {SessionsShared.sentence}"])
    assert "session mode" in SessionsShared.sentence


@pytest.mark.parametrize("settings", ["", ROUND_ROBIN])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_sharing_is_found_while_other_clients_use_the_pooler(
    server: LocalPostgresServer, start_pooler: Callable[..., PgBouncer], mode: str, settings: str
) -> None:
    url = start_pooler(mode, settings).build_url(server.new_database())

    async def query_continuously() -> None:
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            while True:
                await connection.execute("SELECT pg_sleep(0.001)")
        finally:
            connection.terminate()

    others = [asyncio.create_task(query_continuously()) for _ in range(OTHER_CLIENTS)]
    try:
        for _ in range(10):
            stores = open_stores(url)
            with pytest.raises(SessionsShared):
                await stores.database.connect()
            await stores.close()
    finally:
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def test_session_mode_is_never_rejected(
    server: LocalPostgresServer, start_pooler: Callable[..., PgBouncer]
) -> None:
    url = start_pooler("session", "server_round_robin = 1").build_url(server.new_database())
    for _ in range(5):
        stores = open_stores(url)
        await stores.database.connect()
        await stores.database.migrate()
        await stores.database.open()
        await asyncio.gather(*(stores.database.ping() for _ in range(20)), stores.change_feed.read())
        # A connection that is closed releases its process to the next one.
        stores.engine.close_idle()  # type: ignore[attr-defined]
        await asyncio.gather(*(stores.database.ping() for _ in range(20)))
        await append(stores, build_version(1))
        await stores.change_feed.read()
        await stores.close()


async def test_a_mode_that_changes_under_a_running_service_is_noticed(
    tmp_path: Path,
    server: LocalPostgresServer,
    start_pooler: Callable[..., PgBouncer],
) -> None:
    pooler = start_pooler("session")
    async with start_app(build_settings(tmp_path / "data", pooler.build_url(server.new_database()))) as app:
        token = await app.create_token("root", *ADMIN)
        await app.save(token, {"n": 1})
        assert (await app.read(token)).status_code == 200
        pooler.change_mode("transaction")
        await wait_for_reasons(app, token, ["pooler-mode"])
        refused = await app.save(token, {"n": 2})
        assert (refused.status_code, refused.json()["code"]) == (503, "store-unavailable")
        # The change feed may keep its connection. Then reads stay fresh.
        assert (await app.read(token)).status_code == 200
        pooler.change_mode("session")
        await wait_for_reasons(app, token, [])
        assert (await app.save(token, {"n": 3})).status_code == 200


async def wait_for_reasons(app: RunningApp, token: str, expected: list[str]) -> None:
    """Wait for the reasons of health, while clients read and save."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while (await app.request("GET", "/health/ready")).json()["reasons"] != expected:
            assert (await app.read(token)).status_code == 200
            with suppress(TimeoutError):
                assert (await app.save(token, {"n": 2})).status_code in {200, 503}
            await asyncio.sleep(0.05)
