"""PostgreSQL goes and comes back: clear answers in time, nothing lost, no restart."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2

from confide.caching.lease import LEASE_SECONDS
from confide.database.postgresql.engine import UNAVAILABLE_SECONDS
from confide.names import Key
from support.app import PASSWORD, TYPE
from support.histories import find_lost_saves, load_histories
from support.postgres import LocalPostgresServer
from support.processes import run_service
from support.writers import merge_markers

KEY = Key("acme", TYPE)


async def asked(
    client: httpx2.AsyncClient, method: str, *, type_: str = TYPE, headers: Mapping[str, str] | None = None
) -> httpx2.Response:
    """Ask for a read or a save; whatever is answered, it is in time."""
    began = time.monotonic()
    params = {"tenant": KEY.tenant, "integration_type": type_}
    if method == "LOGIN":
        reply = await client.post("/login", json={"login": "root", "password": PASSWORD})
    elif method == "GET":
        reply = await client.get("/config", params=params, headers=headers)
    else:
        reply = await client.post("/config", json={**params, "configuration": {"asked": {str(time.time()): 1}}})
    assert time.monotonic() - began < 2.5
    return reply


async def test_while_postgres_is_down_or_hangs_answers_are_503_and_all_is_well_after(tmp_path: Path) -> None:
    server = LocalPostgresServer(options=())
    server.start()
    try:
        with run_service(tmp_path, "--workers", "2", database=server.new_database(), is_unsafe=False) as service:
            async with service.async_client(service.add_admin()) as client:
                saved = await merge_markers(client, KEY, "before", times=5)
                await read_by_all(client)
                server.stop()
                await refused(client)
                server.start()
                await recovered(client)
                saved += await merge_markers(client, KEY, "between", times=5)
                await read_by_all(client)
                server.signal_all(signal.SIGSTOP)
                await refused(client)
                server.signal_all(signal.SIGCONT)
                await recovered(client)
                saved += await merge_markers(client, KEY, "after", times=5)
            assert len(saved) == 15
        histories = await load_histories(service.data, service._env["CONFIDE_DATABASE"])
        assert find_lost_saves(saved, histories) == []
    finally:
        server.remove()


async def read_by_all(client: httpx2.AsyncClient) -> None:
    """Every worker has the config and the token in memory: there are more connections than workers."""
    for _ in range(5):
        replies = await asyncio.gather(*(asked(client, "GET") for _ in range(40)))
        assert {reply.status_code for reply in replies} == {200}


async def refused(client: httpx2.AsyncClient) -> None:
    """What needs the store is refused in time; what memory knows is answered and says that it is not proven."""
    await past_the_lease()
    for method in ("LOGIN", "GET", "POST", "LOGIN"):
        replies = await asyncio.gather(*(asked(client, method) for _ in range(12)))
        if method == "GET":
            assert {reply.status_code for reply in replies} == {200}
            assert all(is_stale(reply) for reply in replies)
        else:
            assert {reply.status_code for reply in replies} == {503}
            assert all(reply.json()["code"] in {"store-unavailable", "busy"} for reply in replies)
            assert all(reply.headers["retry-after"] for reply in replies)
        # Past the moment in which everything is refused at once: each kind of call meets the outage itself.
        await asyncio.sleep(UNAVAILABLE_SECONDS + 0.1)
    for headers in ({"Cache-Control": "no-cache"}, {"Config-Min-Version": "1000"}):
        reply = await asked(client, "GET", headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (503, "store-unavailable")
    assert (await asked(client, "GET", type_="never-read")).status_code == 503
    health = await client.get("/health/ready")
    assert (health.status_code, health.json()) == (200, {"status": "degraded", "reasons": ["store-unavailable"]})
    assert (await client.get("/health/live")).status_code == 200


async def past_the_lease() -> None:
    await asyncio.sleep(LEASE_SECONDS + 0.1)


def is_stale(reply: httpx2.Response) -> bool:
    """Whether an answer says that it is not proven, and for how long it has not been."""
    found = re.fullmatch(r"stale; age=([1-9][0-9]*)", reply.headers.get("config-freshness", ""))
    return found is not None and int(found[1]) < 60


async def recovered(client: httpx2.AsyncClient) -> None:
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        replies = [await asked(client, "GET") for _ in range(4)]
        if {(reply.status_code, reply.headers.get("config-freshness")) for reply in replies} == {(200, None)}:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("not well within 3 s of the database's return")


async def test_while_somebody_holds_the_lock_of_sqlite_saves_are_503_in_time_and_reads_go_on(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        async with service.async_client(service.add_admin()) as client:
            saved = await merge_markers(client, KEY, "before", times=3)
            lock = os.open(service.data / "confide.lock", os.O_RDWR)
            fcntl.flock(lock, fcntl.LOCK_EX)
            replies = await asyncio.gather(*(asked(client, "POST") for _ in range(6)))
            assert {reply.status_code for reply in replies} == {503}
            assert (await asked(client, "GET")).status_code == 200
            os.close(lock)
            await recovered(client)
            saved += await merge_markers(client, KEY, "after", times=3)
            assert len(saved) == 6
            lock = os.open(service.data / "confide.lock", os.O_RDWR)
            fcntl.flock(lock, fcntl.LOCK_EX)
            await asyncio.gather(*(asked(client, "POST") for _ in range(2)))
        assert await asyncio.to_thread(service.stop) == 0
        os.close(lock)
    assert find_lost_saves(saved, await load_histories(service.data, None)) == []
