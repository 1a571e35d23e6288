"""What is taken from somebody is gone everywhere within a second: revoked tokens, lowered roles, disabled users."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from confide.names import Key
from support.app import TYPE
from support.cluster import ConfigClient, run_cluster
from support.processes import Service

KEY = Key("acme", TYPE)
BOUND_SECONDS = 1.0
TOGETHER = 10
READER = [{"role": "reader", "tenant": "acme", "integration_type": "*"}]
VIEWER = [{"role": "viewer", "tenant": "acme", "integration_type": "*"}]


@dataclass
class Office:
    """Two processes: an admin at one, the tokens of others at the other."""

    services: list[Service]
    admin: httpx2.AsyncClient

    async def hired(self, login: str) -> str:
        """A user with a reader's grant and a service token."""
        await self._done(self.admin.post("/user", json={"login": login, "grants": READER}))
        made = await self._done(self.admin.post("/tokens", json={"label": "worker", "login": login}))
        return str(made["token"])

    async def revoke(self, login: str) -> None:
        tokens = (await self.admin.get("/tokens")).json()["tokens"]
        (known,) = [token["id"] for token in tokens if token["login"] == login]
        await self._done(self.admin.delete(f"/tokens/{known}"))

    async def lower(self, login: str) -> None:
        await self._done(self.admin.patch(f"/users/{login}", json={"grants": VIEWER}))

    async def disable(self, login: str) -> None:
        await self._done(self.admin.patch(f"/users/{login}", json={"disabled": True}))

    async def _done(self, asking: object) -> dict[str, object]:
        reply: httpx2.Response = await asking  # type: ignore[misc]
        assert reply.status_code == 200, reply.text
        return dict(reply.json())


async def overstayed(office: Office, act: str, number: int) -> float:
    """For how long after the act was answered reads of what was taken still began and succeeded."""
    login = f"{act}-{number}"
    token = await office.hired(login)
    last_success = 0.0
    has_read = asyncio.Event()
    taken_at: list[float] = []

    async def reading() -> None:
        nonlocal last_success
        async with ConfigClient(office.services[1], token, KEY) as caller:
            while not taken_at or time.monotonic() < taken_at[0] + BOUND_SECONDS + 0.3:
                call = time.monotonic()
                reply = await caller.read()
                if reply is not None and reply.status == 200 and b'"secret":"s"' in reply.body:
                    last_success = call
                    has_read.set()
                elif taken_at:
                    return
                await asyncio.sleep(0.005)

    reader = asyncio.create_task(reading())
    await has_read.wait()
    await getattr(office, act)(login)
    taken_at.append(time.monotonic())
    await reader
    return last_success - taken_at[0]


async def longest(tmp_path: Path, database: str | None, act: str, *, times: int, fault: str = "") -> float:
    async with run_cluster(tmp_path, 2, database=database, fault=fault) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        async with services[0].async_client(token) as admin:
            document = {"tenant": "acme", "integration_type": TYPE, "configuration": {"secret": "s"}}
            assert (await admin.post("/config", json=document)).status_code == 200
            office = Office(services, admin)
            ages: list[float] = []
            for begin in range(0, times, TOGETHER):
                rounds = (overstayed(office, act, begin + n) for n in range(min(TOGETHER, times - begin)))
                ages += await asyncio.gather(*rounds)
    print(f"{act}: {len(ages)} times, longest {max(ages) * 1e3:.0f} ms")
    return max(ages)


@pytest.mark.parametrize(("act", "times"), [("revoke", 200), ("lower", 200), ("disable", 40)])
async def test_no_success_begins_more_than_a_second_after_it_was_taken(
    tmp_path: Path, database: str | None, act: str, times: int
) -> None:
    assert await longest(tmp_path, database, act, times=times) <= BOUND_SECONDS


@pytest.mark.parametrize("act", ["revoke", "lower"])
async def test_who_does_not_hear_the_news_is_found_out(tmp_path: Path, database: str | None, act: str) -> None:
    assert await longest(tmp_path, database, act, times=2, fault="no-lease,no-change-feed") > BOUND_SECONDS
