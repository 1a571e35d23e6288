"""Exact reads on one machine: no read misses a save, and no request outlives a revocation, that was answered before.

The services of a test share a data folder, as the workers of one service do. Each has a port of its own, so that every
read can go to a process that did not save.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from array import array
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeAlias

import httpx2
import pytest

from confide.caching.stamp_file import FILE_BYTES, FILE_NAME
from confide.caching.stamps import HAS_MARKS, IN_DOUBT
from confide.names import ConfigKey
from support.app import PASSWORD, TYPE
from support.canaries import make_canary
from support.cluster import ConfigClient, run_cluster
from support.processes import FAULTY_SERVICE, Service, run_confide
from support.raw_http import Reply
from support.waiting import wait_until

# Saves of different configs run at the same time, as in a busy service.
KEYS = [ConfigKey(f"tenant-{number}", TYPE) for number in range(4)]
READER = [{"role": "reader", "tenant": "*", "integration_type": "*"}]
VIEWER = [{"role": "viewer", "tenant": "*", "integration_type": "*"}]


async def count_stale_reads(services: list[Service], token: str, *, reads: int) -> int:
    """Save at one service after the other, and read at all of them after each answer. Return how many missed it."""
    stale = await asyncio.gather(
        *(_count_stale_reads_of(services, token, key, reads=reads // len(KEYS)) for key in KEYS)
    )
    return sum(stale)


async def _count_stale_reads_of(services: list[Service], token: str, key: ConfigKey, *, reads: int) -> int:
    done = stale = 0
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(ConfigClient(service, token, key)) for service in services]
        for number in itertools.count():
            if done >= reads:
                return stale
            # Every second save changes nothing. Its answer confirms the version of the one before.
            saved = _require_ok(await clients[number % len(clients)].merge("number", number // 2))
            version = _read_version(saved)
            # The second read of each service comes from its cache.
            for _ in range(2):
                replies = await asyncio.gather(*(client.read() for client in clients))
                stale += sum(_read_version(_require_ok(reply)) < version for reply in replies)
                done += len(replies)
    return stale


def _read_version(reply: Reply) -> int:
    return int(reply.header("config-version") or 0)


def _require_ok(reply: Reply | None) -> Reply:
    assert reply is not None
    assert reply.status == 200, reply.body
    return reply


@pytest.mark.parametrize("workers", [2, 4])
async def test_no_read_after_an_answered_save_misses_it(tmp_path: Path, database: str | None, workers: int) -> None:
    async with run_cluster(tmp_path, workers, database=database) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        assert await count_stale_reads(services, token, reads=2_000) == 0


@pytest.mark.parametrize("fault", ["private-stamps", "stamp-after-answer"])
async def test_a_fault_of_the_stamps_makes_reads_miss_saves(tmp_path: Path, database: str | None, fault: str) -> None:
    if (database, fault) == (None, "stamp-after-answer"):
        fault = "stamp-after-answer-unmarked"  # a mark alone would keep the reads correct
    async with run_cluster(tmp_path, 2, database=database, fault=fault) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        assert await count_stale_reads(services, token, reads=200) > 0


async def test_the_workers_of_one_service_are_exact(tmp_path: Path, database: str | None) -> None:
    service = Service(tmp_path, "--workers", "2", database=database)
    await asyncio.to_thread(service.start)
    try:
        token = await asyncio.to_thread(service.add_admin)
        # Each connection leads to one of the workers.
        assert await count_stale_reads([service] * 6, token, reads=1_000) == 0
    finally:
        await asyncio.to_thread(service.end)


Act: TypeAlias = Callable[[httpx2.AsyncClient, str, int], Awaitable[httpx2.Response]]
# Ways to end access. Each gets the client of an admin, the login of a user and the ID of its token.
ACTS: dict[str, Act] = {
    "revoke": lambda admin, _login, token_id: admin.delete(f"/tokens/{token_id}"),
    "lower_role": lambda admin, login, _id: admin.patch(f"/users/{login}", json={"grants": VIEWER}),
    "disable": lambda admin, login, _id: admin.patch(f"/users/{login}", json={"disabled": True}),
    "remove": lambda admin, login, _id: admin.delete(f"/users/{login}"),
}


# A login is never used twice, also by several acts in one service.
_LOGINS = itertools.count()


class Revocations:
    """Ends the access of new users, and reads with their tokens at every service afterwards."""

    def __init__(self, services: list[Service], token: str) -> None:
        self.services = services
        self._admins = [service.async_client(token) for service in services]
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        document = {"tenant": KEYS[0].tenant, "integration_type": TYPE, "configuration": {"secret": "s"}}
        (await self._admins[0].post("/config", json=document)).raise_for_status()
        return self

    async def __aexit__(self, *_: object) -> None:
        for admin in self._admins:
            await admin.aclose()

    async def count_accepted(self, act: Act) -> int:
        """End the access of a new user. Return how many requests were accepted after the answer."""
        number = next(self._numbers)
        login, admin = f"user-{next(_LOGINS)}", self._admins[number % len(self._admins)]
        (await admin.post("/user", json={"login": login, "grants": READER})).raise_for_status()
        made = (await admin.post("/tokens", json={"label": "worker", "login": login})).json()
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(ConfigClient(service, made["token"], KEYS[0]))
                for service in self.services
            ]
            # Twice, so that each service has the token and the request in its cache.
            for client in clients * 2:
                assert can_read_secret(await client.read())
            (await act(admin, login, made["id"])).raise_for_status()
            replies = await asyncio.gather(*(client.read() for client in clients))
        return sum(map(can_read_secret, replies))


def can_read_secret(reply: Reply | None) -> bool:
    assert reply is not None
    return reply.status == 200 and b'"secret":"s"' in reply.body


async def count_accepted_requests(services: list[Service], token: str, act: str, *, times: int) -> int:
    accepted = 0
    async with Revocations(services, token) as revocations:
        for _ in range(times):
            accepted += await revocations.count_accepted(ACTS[act])
    return accepted


@pytest.mark.parametrize("act", ACTS)
async def test_no_request_after_an_answered_revocation_is_accepted(
    tmp_path: Path, database: str | None, act: str
) -> None:
    async with run_cluster(tmp_path, 2, database=database) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        assert await count_accepted_requests(services, token, act, times=20) == 0


@pytest.mark.parametrize("act", ACTS)
async def test_revocations_without_shared_stamps_are_detected(tmp_path: Path, database: str | None, act: str) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault="private-stamps") as services:
        token = await asyncio.to_thread(services[0].add_admin)
        assert await count_accepted_requests(services, token, act, times=20) > 0


async def test_a_logout_and_a_new_password_end_sessions_in_every_process_at_once(
    tmp_path: Path, database: str | None
) -> None:
    async with run_cluster(tmp_path, 2, database=database) as services:
        admin = await asyncio.to_thread(services[0].add_admin)
        document = {"tenant": KEYS[0].tenant, "integration_type": TYPE, "configuration": {"a": 1}}
        async with services[0].async_client(admin) as client:
            (await client.post("/config", json=document)).raise_for_status()
        new = make_canary("password")
        async with AsyncExitStack() as stack:
            first, second, third = [await asyncio.to_thread(services[0].login) for _ in range(3)]
            readers = [
                await stack.enter_async_context(ConfigClient(services[1], one, KEYS[0])) for one in (first, second)
            ]
            for reader in readers * 2:
                _require_ok(await reader.read())
            async with services[0].async_client(first) as own:
                (await own.post("/logout")).raise_for_status()
            assert (await read_statuses(readers)) == [401, 200]
            async with services[0].async_client(third) as other:
                (await other.put("/users/me/password", json={"old": PASSWORD, "new": new})).raise_for_status()
            assert (await read_statuses(readers)) == [401, 401]


async def read_statuses(clients: list[ConfigClient]) -> list[int]:
    replies = [await client.read() for client in clients]
    return [0 if reply is None else reply.status for reply in replies]


async def test_a_changed_type_and_a_destroyed_tenant_are_seen_in_every_process_at_once(
    tmp_path: Path, database: str | None
) -> None:
    async with run_cluster(tmp_path, 2, database=database) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        key = KEYS[0]
        async with (
            services[0].async_client(token) as admin,
            ConfigClient(services[1], token, key) as reader,
        ):
            for number in range(10):
                document = {"tenant": key.tenant, "integration_type": TYPE, "configuration": {"a": number}}
                (await admin.post("/config", json=document)).raise_for_status()
                for _ in range(2):
                    _require_ok(await reader.read())
                schema = {"type": "object", "properties": {"b": {"type": "integer", "default": number}}}
                (await admin.put(f"/integration-types/{TYPE}", json={"schema": schema})).raise_for_status()
                assert _require_ok(await reader.read()).json()["configuration"]["b"] == number
                (await admin.delete(f"/tenants/{key.tenant}?confirm={key.tenant}")).raise_for_status()
                missing = await reader.read()
                assert missing is not None
                assert missing.status == 404


async def test_a_command_on_the_host_stamps_too(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 1, database=database) as (service,):
        token = await asyncio.to_thread(service.add_admin)
        async with ConfigClient(service, token, KEYS[0]) as client:
            _require_ok(await client.merge("a"))
            for _ in range(2):
                _require_ok(await client.read())
            env = {"CONFIDE_UNSAFE_DURABILITY": "true", **({"CONFIDE_DATABASE": database} if database else {})}
            password = make_canary("password")
            done = await asyncio.to_thread(
                run_confide,
                *("user", "password", "root", "--data", str(tmp_path / "data")),
                cwd=tmp_path,
                stdin=f"{password}\n{password}\n",
                env=env,
            )
            assert done.returncode == 0, done.stderr
            refused = await client.read()
            assert refused is not None
            assert refused.status == 401


def read_words(folder: Path) -> array[int]:
    return array("Q", (folder / FILE_NAME).read_bytes())


@pytest.mark.parametrize("fault", ["die-before-commit", "die-after-commit"])
async def test_a_writer_that_dies_between_mark_and_stamp_makes_no_read_stale(tmp_path: Path, fault: str) -> None:
    """Kill a process with SIGKILL at that point. Its save has no answer, but reads must never go back."""
    data = tmp_path / "data"
    trigger = tmp_path / "die"
    env = {"FAULT": fault, "DIE_IF_EXISTS": str(trigger), "PYTHONPATH": str(Path(__file__).parents[1])}
    dying = Service(tmp_path / "dying", "--data", str(data), program=FAULTY_SERVICE, env=env)
    healthy = Service(tmp_path / "healthy", "--data", str(data))
    try:
        for service in (dying, healthy):
            await asyncio.to_thread(service.start)
        token = await asyncio.to_thread(healthy.add_admin)
        async with ConfigClient(healthy, token, KEYS[0]) as client, ConfigClient(dying, token, KEYS[0]) as writer:
            first = _read_version(_require_ok(await client.merge("a")))
            _require_ok(await client.read())
            trigger.touch()
            assert await writer.merge("b") is None
            wait_until(lambda: dying.process is None or dying.process.poll() is not None, "the writer is dead")
            assert dying.process is not None
            assert dying.process.returncode in (-signal.SIGKILL, 1)
            assert read_words(data)[HAS_MARKS] == 1
            expected = first + (fault == "die-after-commit")
            seen = [_read_version(_require_ok(await client.read())) for _ in range(3)]
            assert seen == [expected] * 3
            # The next writer replaces the marks, whatever it saves.
            async with ConfigClient(healthy, token, KEYS[1]) as other:
                _require_ok(await other.merge("c"))
            words = read_words(data)
            assert words[HAS_MARKS] == 0
            assert not any(word & IN_DOUBT for word in words)
            assert _read_version(_require_ok(await client.read())) == expected
    finally:
        for service in (dying, healthy):
            await asyncio.to_thread(service.end)


async def test_health_says_if_the_stamps_cannot_be_shared(tmp_path: Path, database: str | None) -> None:
    stamps = tmp_path / "data" / FILE_NAME
    stamps.parent.mkdir(mode=0o700)
    stamps.write_bytes(b"\0" * (FILE_BYTES + 8))
    async with run_cluster(tmp_path, 1, database=database) as (service,):
        await require_degraded(service)
        token = await asyncio.to_thread(service.add_admin)
        async with ConfigClient(service, token, KEYS[0]) as client:
            _require_ok(await client.merge("a"))
            _require_ok(await client.read())
    stamps.unlink()
    async with run_cluster(tmp_path, 1, database=database) as (service,):
        assert "stamps-unavailable" not in (await read_health(service))["reasons"]
        stamps.unlink()
        await require_degraded(service)


async def read_health(service: Service) -> Any:
    async with httpx2.AsyncClient(base_url=service.url) as client:
        return json.loads((await client.get("/health/ready")).content)


async def require_degraded(service: Service) -> None:
    health = await read_health(service)
    assert health["status"] == "degraded"
    assert "stamps-unavailable" in health["reasons"]
    assert "stamps_unavailable" in service.log.read_text()


# The long forms of the tests above.


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("workers", [2, 4])
async def test_a_hundred_thousand_reads_after_saves_miss_none(
    tmp_path: Path, database: str | None, workers: int
) -> None:
    async with run_cluster(tmp_path, workers, database=database) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        assert await count_stale_reads(services, token, reads=100_000) == 0


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("workers", [2, 4])
async def test_two_thousand_requests_after_revocations_are_refused(
    tmp_path: Path, database: str | None, workers: int
) -> None:
    async with run_cluster(tmp_path, workers, database=database) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        for act in ACTS:
            times = 2_000 // workers // len(ACTS)
            assert await count_accepted_requests(services, token, act, times=times) == 0
