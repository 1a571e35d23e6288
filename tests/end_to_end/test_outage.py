"""PostgreSQL stops and returns: errors come in time, no save is lost, and no restart is needed."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2

from confide.caching.lease import LEASE_SECONDS
from confide.database.postgresql.engine import UNAVAILABLE_SECONDS
from confide.names import ConfigKey
from support.app import PASSWORD, TYPE
from support.bounds import assert_within
from support.histories import find_lost_saves, load_histories
from support.postgres import OwnPostgresServer
from support.processes import Service, run_service
from support.waiting import MAX_WAIT_SECONDS
from support.writers import merge_markers

KEY = ConfigKey("acme", TYPE)
# The service promises 2 s for a response. The rest is for the network and the client.
RESPONSE_SECONDS = 2.5
RECOVERY_SECONDS = 3.0
WORKERS = 2
# So many connections reach every worker.
CONNECTIONS = 40
# The exit code of a service that could not start.
START_FAILED = 9


async def request(
    client: httpx2.AsyncClient, method: str, *, type_: str = TYPE, headers: Mapping[str, str] | None = None
) -> httpx2.Response:
    """Send a login (LOGIN), a read (GET) or a save (POST), whose response must come in time."""
    start = time.monotonic()
    params = {"tenant": KEY.tenant, "integration_type": type_}
    if method == "LOGIN":
        reply = await client.post("/login", json={"login": "root", "password": PASSWORD})
    elif method == "GET":
        reply = await client.get("/config", params=params, headers=headers)
    else:
        reply = await client.post("/config", json={**params, "configuration": {"outage": {str(time.time()): 1}}})
    assert_within(time.monotonic() - start, RESPONSE_SECONDS, f"a response to {method}")
    return reply


@contextmanager
def run_service_on_postgresql(folder: Path, server: OwnPostgresServer) -> Iterator[Service]:
    """Run a service with several workers."""
    database = server.new_database()
    with run_service(folder, "--workers", f"{WORKERS}", database=database, is_unsafe=False) as service:
        yield service


async def test_while_postgresql_is_down_or_hangs_responses_are_503_and_the_service_recovers(
    tmp_path: Path, own_postgres: OwnPostgresServer
) -> None:
    with run_service_on_postgresql(tmp_path, own_postgres) as service:
        async with service.async_client(service.add_admin()) as client:
            saved = await merge_markers(client, KEY, "before", times=5)
            await read_at_all_workers(client)
            own_postgres.stop()
            await check_outage(client)
            own_postgres.start()
            await check_recovery(client)
            saved += await merge_markers(client, KEY, "between", times=5)
            await read_at_all_workers(client)
            own_postgres.signal_all(signal.SIGSTOP)
            await check_outage(client)
            own_postgres.signal_all(signal.SIGCONT)
            await check_recovery(client)
            saved += await merge_markers(client, KEY, "after", times=5)
        assert len(saved) == 15
        assert await asyncio.to_thread(service.stop) == 0
        histories = await load_histories(service.data, service._env["CONFIDE_DATABASE"])
        assert find_lost_saves(saved, histories) == []


async def read_at_all_workers(client: httpx2.AsyncClient) -> None:
    """Read until every worker has the config and the token in its cache."""
    for _ in range(5):
        replies = await asyncio.gather(*(request(client, "GET") for _ in range(CONNECTIONS)))
        assert {reply.status_code for reply in replies} == {200}


async def check_outage(client: httpx2.AsyncClient) -> None:
    """Check that cached configs are served stale and that everything else is 503."""
    await asyncio.sleep(LEASE_SECONDS + 0.1)  # the cache is fresh until the lease ends
    for method in ("LOGIN", "GET", "POST", "LOGIN"):
        replies = await asyncio.gather(*(request(client, method) for _ in range(12)))
        if method == "GET":
            assert {reply.status_code for reply in replies} == {200}
            assert all(is_stale(reply) for reply in replies)
        else:
            assert {reply.status_code for reply in replies} == {503}
            assert all(reply.json()["code"] in {"store-unavailable", "busy"} for reply in replies)
            assert all(reply.headers["retry-after"] for reply in replies)
        # After an error every query fails at once for a moment. Each method meets the outage itself after it.
        await asyncio.sleep(UNAVAILABLE_SECONDS + 0.1)
    for headers in ({"Cache-Control": "no-cache"}, {"Config-Min-Version": "1000"}):
        reply = await request(client, "GET", headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (503, "store-unavailable")
    assert (await request(client, "GET", type_="never-read")).status_code == 503
    health = await client.get("/health/ready")
    assert (health.status_code, health.json()) == (200, {"status": "degraded", "reasons": ["store-unavailable"]})
    assert (await client.get("/health/live")).status_code == 200


def is_stale(reply: httpx2.Response) -> bool:
    """Return whether a response says that it is stale, and a plausible age."""
    found = re.fullmatch(r"stale; age=([1-9][0-9]*)", reply.headers.get("config-freshness", ""))
    return found is not None and int(found[1]) < MAX_WAIT_SECONDS


async def check_recovery(client: httpx2.AsyncClient) -> None:
    async def reads_fresh() -> bool:
        replies = [await request(client, "GET") for _ in range(4)]
        return {(reply.status_code, reply.headers.get("config-freshness")) for reply in replies} == {(200, None)}

    await check_condition_comes(reads_fresh, "fresh reads after the outage")


async def check_condition_comes(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition, and check the promised time of recovery."""
    start = time.monotonic()
    while not await condition():
        assert time.monotonic() < start + MAX_WAIT_SECONDS, what
        await asyncio.sleep(0.1)
    assert_within(time.monotonic() - start, RECOVERY_SECONDS, what)


async def test_while_another_process_holds_the_lock_of_sqlite_saves_are_503_and_reads_go_on(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        async with service.async_client(service.add_admin()) as client:
            saved = await merge_markers(client, KEY, "before", times=3)
            lock = os.open(service.data / "confide.lock", os.O_RDWR)
            fcntl.flock(lock, fcntl.LOCK_EX)
            replies = await asyncio.gather(*(request(client, "POST") for _ in range(6)))
            assert {reply.status_code for reply in replies} == {503}
            assert (await request(client, "GET")).status_code == 200
            os.close(lock)
            await check_recovery(client)
            saved += await merge_markers(client, KEY, "after", times=3)
            assert len(saved) == 6
            lock = os.open(service.data / "confide.lock", os.O_RDWR)
            fcntl.flock(lock, fcntl.LOCK_EX)
            await asyncio.gather(*(request(client, "POST") for _ in range(2)))
        assert await asyncio.to_thread(service.stop) == 0
        os.close(lock)
    assert find_lost_saves(saved, await load_histories(service.data, None)) == []


def list_workers(service: Service) -> set[int]:
    """Return the process IDs of the workers: the children that serve."""
    assert service.process is not None
    pid = service.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


async def wait_for_log(service: Service, text: str) -> None:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while text not in service.log.read_text():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)


async def test_a_worker_that_ends_during_an_outage_starts_again_after_it(
    tmp_path: Path, own_postgres: OwnPostgresServer
) -> None:
    with run_service_on_postgresql(tmp_path, own_postgres) as service:
        async with service.async_client(service.add_admin()) as client:
            await merge_markers(client, KEY, "before", times=3)
            await read_at_all_workers(client)
            own_postgres.stop()
            killed, other = sorted(list_workers(service))
            os.kill(killed, signal.SIGKILL)
            await wait_for_log(service, "worker_start_delayed")
            assert other in list_workers(service)
            async with httpx2.AsyncClient(base_url=service.url, timeout=10) as fresh:
                assert (await fresh.get("/health/live")).status_code == 200
            own_postgres.start()
            await check_recovery(client)
            assert len(list_workers(service)) == WORKERS
        assert await asyncio.to_thread(service.stop) == 0


async def test_sigterm_ends_a_service_whose_worker_waits_for_the_database(
    tmp_path: Path, own_postgres: OwnPostgresServer
) -> None:
    with run_service_on_postgresql(tmp_path, own_postgres) as service:
        service.add_admin()
        own_postgres.stop()
        os.kill(min(list_workers(service)), signal.SIGKILL)
        await wait_for_log(service, "worker_start_delayed")
        assert await asyncio.to_thread(service.stop) == 0


async def test_a_worker_that_cannot_start_ends_the_service_with_an_exit_code(
    tmp_path: Path, own_postgres: OwnPostgresServer
) -> None:
    with run_service_on_postgresql(tmp_path, own_postgres) as service:
        service.add_admin()
        own_postgres.execute("ALTER SYSTEM SET synchronous_commit = off")
        own_postgres.execute("SELECT pg_reload_conf()")
        os.kill(min(list_workers(service)), signal.SIGKILL)
        assert service.process is not None
        assert await asyncio.to_thread(service.process.wait, MAX_WAIT_SECONDS) == START_FAILED
