"""Reads continue during each outage of PostgreSQL, and saves return as soon as the path to it is back."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from confide.caching.lease import LEASE_SECONDS
from confide.names import ConfigKey
from confide.telemetry.outage import MAX_REASONS
from support.app import TYPE
from support.bounds import assert_within
from support.cluster import ConfigClient, run_cluster
from support.postgres import LocalPostgresServer, find_distribution_binaries
from support.proxy import Proxy
from support.raw_http import Reply
from support.waiting import MAX_WAIT_SECONDS

KEY = ConfigKey("acme", TYPE)
# What the service promises, from the first connection of a probe to a writable server at the configured address.
SAVE_SECONDS = 1.0
FRESH_SECONDS = 2.0
# Reads may begin to be stale, and every connection may begin to hang.
OUTAGE_SECONDS = 4.0
PROBE_SECONDS = 0.3


class Site:
    """A primary, a hot standby and an address that leads to one of them."""

    def __init__(self) -> None:
        binaries = find_distribution_binaries()
        self.primary = LocalPostgresServer(options=(), binaries=binaries)
        self.primary.start()
        self.standby = LocalPostgresServer(options=(), binaries=binaries, primary=self.primary)
        self.standby.start()
        self.address = Proxy(self.primary.port)

    def remove(self) -> None:
        self.standby.remove()
        self.primary.remove()


@dataclass
class Log:
    """What clients saw, with times on the monotonic clock."""

    reads: list[tuple[float, Reply]] = field(default_factory=list)
    saves: list[tuple[float, Reply]] = field(default_factory=list)


async def read_continuously(client: ConfigClient, log: Log) -> None:
    while True:
        reply = await client.read()
        assert reply is not None, "a read had no response"
        log.reads.append((time.monotonic(), reply))
        await asyncio.sleep(0.01)


async def save_continuously(client: ConfigClient, log: Log) -> None:
    for number in range(1_000_000):
        reply = await client.merge(f"m{number}")
        assert reply is not None, "a save had no response"
        log.saves.append((time.monotonic(), reply))
        await asyncio.sleep(0.01)


async def probe(url: str) -> float:
    """Connect until a writable server answers at the address. Return the time."""
    while True:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(PROBE_SECONDS):
                connection = await asyncpg.connect(url)
                try:
                    if not await connection.fetchval("SELECT current_setting('transaction_read_only')::boolean"):
                        return time.monotonic()
                finally:
                    connection.terminate()
        await asyncio.sleep(0.01)


async def wait_for(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - the clients are other tasks
            await asyncio.sleep(0.01)
    assert condition(), what


async def stop_and_start(site: Site) -> AsyncIterator[None]:
    await asyncio.to_thread(site.primary.stop)
    yield
    await asyncio.to_thread(site.primary.start)


async def freeze_and_thaw(site: Site) -> AsyncIterator[None]:
    site.primary.signal_all(signal.SIGSTOP)
    yield
    site.primary.signal_all(signal.SIGCONT)


async def lose_packets(site: Site) -> AsyncIterator[None]:
    site.address.stall()
    yield
    site.address.heal()


async def lose_connections(site: Site) -> AsyncIterator[None]:
    """Connections from before stay silent after the path is back, as behind a firewall that forgot them."""
    site.address.stall()
    yield
    site.address.release_new()


async def make_read_only(site: Site) -> AsyncIterator[None]:
    await asyncio.to_thread(site.primary.execute, "ALTER SYSTEM SET default_transaction_read_only = on")
    await asyncio.to_thread(site.primary.execute, "SELECT pg_reload_conf()")
    yield
    await asyncio.to_thread(site.primary.execute, "ALTER SYSTEM RESET default_transaction_read_only")
    await asyncio.to_thread(site.primary.execute, "SELECT pg_reload_conf()")


async def lead_to_standby(site: Site) -> AsyncIterator[None]:
    site.address.redirect(site.standby.port)
    yield
    site.address.redirect(site.primary.port)


async def fail_over(site: Site) -> AsyncIterator[None]:
    await asyncio.to_thread(site.primary.kill)
    yield
    await asyncio.to_thread(site.standby.execute, "SELECT pg_promote()")
    site.address.redirect(site.standby.port)


async def fail_over_from_frozen(site: Site) -> AsyncIterator[None]:
    """Replace a frozen primary. Connections to it stay open and silent."""
    site.primary.signal_all(signal.SIGSTOP)
    yield
    await asyncio.to_thread(site.standby.execute, "SELECT pg_promote()")
    site.address.redirect_new(site.standby.port)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    built = Site()
    await built.address.start()
    yield built
    await built.address.stop()
    built.remove()


@asynccontextmanager
async def running_clients(*work: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    "fault",
    [
        stop_and_start,
        freeze_and_thaw,
        lose_packets,
        lose_connections,
        make_read_only,
        lead_to_standby,
        fail_over,
        fail_over_from_frozen,
    ],
)
async def test_reads_continue_during_an_outage_and_saves_return_with_the_path(
    tmp_path: Path, site: Site, fault: Callable[[Site], AsyncIterator[None]]
) -> None:
    url = site.primary.build_proxied_url(site.primary.new_database(), site.address.port)
    async with run_cluster(tmp_path, 1, database=url) as (service,):
        token = await asyncio.to_thread(service.add_admin)
        log = Log()
        reader, writer = ConfigClient(service, token, KEY), ConfigClient(service, token, KEY)
        assert (await writer.merge("first")) is not None
        async with reader, writer, running_clients(read_continuously(reader, log), save_continuously(writer, log)):
            await wait_for(lambda: len(log.saves) > 10 and len(log.reads) > 10, "reads and saves before the outage")
            steps = fault(site)
            began = time.monotonic()
            await anext(steps)
            await asyncio.sleep(OUTAGE_SECONDS)
            probing = asyncio.create_task(probe(url))
            ended = time.monotonic()
            with suppress(StopAsyncIteration):
                await anext(steps)
            back_at = await probing
            await wait_for(lambda: find_first(log.saves, is_saved, after=ended), "a save after the outage")
            await wait_for(lambda: find_first(log.reads, is_fresh, after=ended), "a fresh read after the outage")
            await asyncio.sleep(FRESH_SECONDS)
        await wait_for(lambda: not find_open_outages(service.log), "the end of each outage in the log")
    check_reads(log, began=began, ended=ended)
    saved_at = find_first(log.saves, is_saved, after=ended)
    fresh_at = find_first(log.reads, is_fresh, after=ended)
    print(f"{fault.__name__}: saves {saved_at - back_at:.2f} s, fresh {fresh_at - back_at:.2f} s after the path")
    assert_within(saved_at - back_at, SAVE_SECONDS, "the first save after the path is back")
    last_stale = max(at for at, reply in log.reads if not is_fresh(reply))
    assert_within(last_stale - back_at, FRESH_SECONDS, "the last stale read after the path is back")
    refused = [at for at, reply in log.saves if at > saved_at and not is_saved(reply)]
    assert not refused, f"{len(refused)} saves were refused after the first one"


def check_reads(log: Log, *, began: float, ended: float) -> None:
    assert {reply.status for _, reply in log.reads} == {200}
    stale = [at for at, reply in log.reads if not is_fresh(reply)]
    assert min(stale) > began
    unproven = [reply for at, reply in log.reads if began + LEASE_SECONDS + 0.5 < at < ended]
    assert unproven
    assert not [reply for reply in unproven if is_fresh(reply)], "a read without proof was not marked as stale"


def find_open_outages(file: Path) -> list[str]:
    """Check that background tasks log each reason once in an outage. Return the reasons of outages without an end."""
    events = [json.loads(line)["event"] for line in file.read_text().splitlines() if line.startswith("{")]
    found: list[str] = []
    for name in ("change_feed", "audit_chain"):
        reasons: list[str] = []
        for event in events:
            if event.startswith(f"{name}_unavailable"):
                reasons.append(event.partition("reason=")[2].strip())
            elif event.startswith(f"{name}_available outage_seconds="):
                reasons.clear()
            assert all(reasons)
            assert len(reasons) == len(set(reasons)) <= MAX_REASONS
        found += reasons
    return found


def is_saved(reply: Reply) -> bool:
    return reply.status == 200


def is_fresh(reply: Reply) -> bool:
    return reply.header("config-freshness") is None


def find_first(replies: list[tuple[float, Reply]], condition: Callable[[Reply], bool], *, after: float) -> float:
    """Return when the first such response came, or 0.0."""
    return next((at for at, reply in replies if at > after and condition(reply)), 0.0)
