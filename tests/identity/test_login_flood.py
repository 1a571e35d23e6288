"""A flood of logins with made-up names does not keep out a user who has logged in before."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import httpx2
import pytest

from confide.errors import Busy
from confide.identity import login_limits
from confide.identity.hash_queue import MAX_PLACES, MAX_PLACES_OF_AN_ADDRESS, RESERVED_PLACES, HashQueue
from confide.server.application import Application
from support.app import ADMIN, PASSWORD, RunningApp, build_settings, start_app
from support.canaries import make_canary
from support.waiting import wait_until_async

CONNECTIONS = 24
LOGINS = 5
WRONG = make_canary("password")


def connect(app: RunningApp, address: str) -> httpx2.AsyncClient:
    """Return a client with this address."""
    transport = httpx2.ASGITransport(app=Application(lambda: app.process), client=(address, 1_234))
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost")


async def log_in(client: httpx2.AsyncClient, login: str, password: str = PASSWORD) -> httpx2.Response:
    return await client.post("/login", json={"login": login, "password": password})


@asynccontextmanager
async def flood(app: RunningApp, *addresses: str) -> AsyncIterator[Counter[int]]:
    """Send logins with made-up names from each address. Yield the counts of the responses by status."""
    statuses: Counter[int] = Counter()
    names = count()

    async def send(client: httpx2.AsyncClient) -> None:
        while True:
            statuses[(await log_in(client, f"made-up-{next(names)}", WRONG)).status_code] += 1
            await asyncio.sleep(0.01)  # the client is in this process, and must not take all of its time

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(app, address)) for address in addresses]
        tasks = [asyncio.create_task(send(client)) for client in clients for _ in range(CONNECTIONS // len(clients))]
        try:
            await wait_until_async(lambda: statuses[503] + statuses[429], "the queue is full")
            yield statuses
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def _without_limit_over_all_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the flood go on, so that only the places of the queue hold it back."""
    monkeypatch.setattr(login_limits, "MAX_OVER_ALL_LOGINS", 10**9)


@pytest.mark.usefixtures("_without_limit_over_all_logins")
@pytest.mark.parametrize("flooding", [("192.0.2.1",), tuple(f"192.0.2.{number}" for number in range(1, 9))])
async def test_a_user_who_logged_in_before_can_log_in_during_a_flood(
    sqlite_app: RunningApp, flooding: tuple[str, ...]
) -> None:
    await sqlite_app.add_user("ada", *ADMIN)
    async with connect(sqlite_app, "192.0.2.1") as ada:
        assert (await log_in(ada, "ada")).status_code == 200
        async with flood(sqlite_app, *flooding) as statuses:
            assert [(await log_in(ada, "ada")).status_code for _ in range(LOGINS)] == [200] * LOGINS
        assert statuses[503] > 0


@pytest.mark.usefixtures("_without_limit_over_all_logins")
async def test_a_user_of_another_address_can_log_in_during_a_flood_from_one(sqlite_app: RunningApp) -> None:
    await sqlite_app.add_user("ada", *ADMIN)
    async with flood(sqlite_app, "192.0.2.1"), connect(sqlite_app, "198.51.100.1") as ada:
        assert [(await log_in(ada, "ada")).status_code for _ in range(LOGINS)] == [200] * LOGINS


@pytest.mark.usefixtures("_without_limit_over_all_logins")
async def test_a_user_who_logged_in_through_an_unnamed_proxy_can_log_in_during_a_flood(sqlite_app: RunningApp) -> None:
    await sqlite_app.add_user("ada", *ADMIN)
    header = {"X-Forwarded-For": "203.0.113.9"}
    async with connect(sqlite_app, "192.0.2.1") as ada:
        ada.headers.update(header)
        assert (await log_in(ada, "ada")).status_code == 200
        async with flood(sqlite_app, "192.0.2.1"):
            assert [(await log_in(ada, "ada")).status_code for _ in range(LOGINS)] == [200] * LOGINS


async def test_many_logins_of_one_address_are_limited_and_other_addresses_are_not(sqlite_app: RunningApp) -> None:
    await sqlite_app.add_user("ada", *ADMIN)
    async with connect(sqlite_app, "192.0.2.1") as spraying, connect(sqlite_app, "192.0.2.2") as ada:
        statuses = [
            (await log_in(spraying, f"user{number}", WRONG)).status_code
            for number in range(login_limits.MAX_OVER_ALL_LOGINS + 2)
        ]
        assert statuses == [401] * login_limits.MAX_OVER_ALL_LOGINS + [429] * 2
        assert (await log_in(ada, "ada")).status_code == 200


async def test_failures_behind_an_unnamed_proxy_do_not_count_over_all_logins(
    sqlite_app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_limits, "MAX_OVER_ALL_LOGINS", 8)
    await sqlite_app.add_user("ada", *ADMIN)
    async with connect(sqlite_app, "192.0.2.1") as proxy:
        proxy.headers["X-Forwarded-For"] = "203.0.113.9"
        assert [(await log_in(proxy, f"user{number}", WRONG)).status_code for number in range(12)] == [401] * 12
        # A client that pretends to be a proxy does not escape the limit of a login.
        assert [(await log_in(proxy, "bob", WRONG)).status_code for _ in range(6)] == [401] * 5 + [429]
        assert (await log_in(proxy, "ada")).status_code == 200
        health = (await proxy.get("/health/ready")).json()
        assert (health["status"], "proxy-untrusted" in health["reasons"]) == ("degraded", True)


async def test_a_client_with_a_public_address_cannot_pretend_to_be_a_proxy(
    sqlite_app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_limits, "MAX_OVER_ALL_LOGINS", 3)
    async with connect(sqlite_app, "8.8.8.8") as client:
        client.headers["X-Forwarded-For"] = "203.0.113.9"
        names = [f"user{number}" for number in range(6)]
        assert [(await log_in(client, name, WRONG)).status_code for name in names] == [401] * 3 + [429] * 3
        assert (await client.get("/health/ready")).json()["reasons"].count("proxy-untrusted") == 0


async def test_every_caller_is_behind_a_proxy_if_the_tls_proxy_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_limits, "MAX_OVER_ALL_LOGINS", 3)
    settings = build_settings(tmp_path / "data", None, behind_tls_proxy=True)
    async with start_app(settings) as app, connect(app, "192.0.2.1") as client:
        statuses = [(await log_in(client, f"user{number}", WRONG)).status_code for number in range(6)]
        assert statuses == [401] * 6
        assert "proxy-untrusted" in (await client.get("/health/ready")).json()["reasons"]


def test_one_address_holds_at_most_a_quarter_of_the_queue_and_a_quarter_is_reserved() -> None:
    queue, stack = HashQueue(), []

    def take(address: str | None) -> bool:
        place = queue.take_unproven(address)
        try:
            place.__enter__()
        except Busy:
            return False
        stack.append(place)
        return True

    assert [take("a") for _ in range(MAX_PLACES)].count(True) == MAX_PLACES_OF_AN_ADDRESS == MAX_PLACES // 4
    assert [take(None) for _ in range(MAX_PLACES)].count(True) == MAX_PLACES * 3 // 4 - MAX_PLACES // 4 + 1
    assert not take("b")
    for _ in range(RESERVED_PLACES):
        reserved = queue.take_reserved()
        reserved.__enter__()
        stack.append(reserved)
    with pytest.raises(Busy), queue.take_reserved():
        pass
    for place in stack:
        place.__exit__(None, None, None)
    assert (queue.taken, queue._unproven, dict(queue._by_address)) == (0, 0, {})
