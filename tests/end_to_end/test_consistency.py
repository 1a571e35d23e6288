"""What several processes answer while they are killed, paused and cut off: never older than a second, unless said."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from confide.names import Key
from support.app import TYPE
from support.cluster import ConfigClient, merge_repeatedly, read_repeatedly, run_cluster
from support.histories import load_histories
from support.linearizability import Operation, find_session_violations, find_violations, measure_staleness
from support.observer import observe
from support.postgres import PostgresServer
from support.processes import Service
from support.proxy import Proxy

KEY = Key("acme", TYPE)
BOUND_SECONDS = 1.0
# Both faults together make an ordinary cache, whose entries end only by their time to live.
TIME_ONLY = "no-lease,no-change-feed"


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


async def final_markers(service: Service) -> list[str]:
    """The markers of the key in the order of their versions, from the store itself."""
    histories = await load_histories(service.folder.parent / "data", service._env.get("CONFIDE_DATABASE"))
    order: list[str] = []
    for document in histories.get(KEY, []):
        order += [marker for marker in document or {} if marker not in order]
    return order


async def stale_reads(services: list[Service], token: str, *, seconds: float) -> list[float]:
    """Writes at the first service, reads at all others; the staleness of each read."""
    until = after(seconds)
    callers = [ConfigClient(service, token, KEY, name=f"{n}") for n, service in enumerate(services)]
    written, *seen = await asyncio.gather(
        merge_repeatedly(callers[0], until=until, pause_seconds=0.02),
        *(read_repeatedly(caller, until=until, pause_seconds=0.001) for caller in callers[1:]),
    )
    assert len(written) > 10
    assert all(len(ops) > 20 for ops in seen)
    return measure_staleness([op for ops in seen for op in ops], written)


def tell(what: str, ages: list[float]) -> None:
    ages = sorted(ages)
    p99 = ages[len(ages) * 99 // 100]
    print(f"{what}: {len(ages)} reads, p99 {p99 * 1e3:.1f} ms, max {ages[-1] * 1e3:.1f} ms")


async def test_reads_in_other_processes_are_fresh_within_a_second(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 3, database=database) as services:
        ages = await stale_reads(services, services[0].add_admin(), seconds=4)
    tell("C-stale", ages)
    assert max(ages) <= BOUND_SECONDS


async def test_a_cache_that_only_counts_time_fails_the_same_test(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault=TIME_ONLY) as services:
        ages = await stale_reads(services, services[0].add_admin(), seconds=2.5)
    assert max(ages) > BOUND_SECONDS


async def stalled(tmp_path: Path, postgres: PostgresServer, *, fault: str = "", stalls: int = 3) -> list[float]:
    """Only the link on which news comes is stalled; the reads go through another connection."""
    url = postgres.new_database()
    proxy = Proxy(postgres.port, host=postgres.host, only=b"LISTEN")
    await proxy.start()
    through = postgres.build_proxied_url(url, proxy.port)
    ages: list[float] = []
    try:
        async with run_cluster(tmp_path, 2, databases=[url, through], fault=fault) as services:
            token = services[0].add_admin()
            for _ in range(stalls):
                proxy.stall()
                ages += await stale_reads(services, token, seconds=2.5)
                proxy.heal()
                ages += await stale_reads(services, token, seconds=1)
    finally:
        await proxy.stop()
    return ages


async def test_a_stalled_change_feed_makes_no_read_older_than_a_second(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    ages = await stalled(tmp_path, postgres, stalls=2)
    tell("C-stall", ages)
    assert max(ages) <= BOUND_SECONDS


async def test_without_the_lease_a_stalled_link_is_found_out(tmp_path: Path, postgres: PostgresServer) -> None:
    assert max(await stalled(tmp_path, postgres, fault="no-lease", stalls=1)) > BOUND_SECONDS


async def paused(services: list[Service], token: str, *, pauses: int, seconds: float = 1.6) -> list[float]:
    """One process is stopped while the other saves; reads that began while it stood still are the first answered."""
    ages: list[float] = []
    process = services[1].process
    assert process is not None
    for _ in range(pauses):
        async with ConfigClient(services[1], token, KEY) as before:
            await before.read()
            await before.read()
        process.send_signal(signal.SIGSTOP)
        until = after(seconds)
        writing = asyncio.create_task(
            merge_repeatedly(
                ConfigClient(services[0], token, KEY, name=f"{time.monotonic()}"), until=until, pause_seconds=0.05
            )
        )
        await asyncio.sleep(seconds - 0.1)
        waiting = [
            asyncio.create_task(read_repeatedly(ConfigClient(services[1], token, KEY), until=after(seconds)))
            for _ in range(4)
        ]
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGCONT)
        written = await writing
        ages += measure_staleness([op for ops in await asyncio.gather(*waiting) for op in ops], written)
    return ages


async def test_a_process_that_stood_still_answers_nothing_older_than_a_second(
    tmp_path: Path, database: str | None
) -> None:
    async with run_cluster(tmp_path, 2, database=database) as services:
        ages = await paused(services, services[0].add_admin(), pauses=2)
    tell("C-pause", ages)
    assert max(ages) <= BOUND_SECONDS


async def test_without_the_lease_a_pause_is_found_out(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault=TIME_ONLY) as services:
        assert max(await paused(services, services[0].add_admin(), pauses=1)) > BOUND_SECONDS


async def harmed(services: list[Service], *, until: Callable[[], bool]) -> None:
    """Kill and pause processes at random moments, all but the first."""
    chance = random.Random(11)
    while not until():
        service = chance.choice(services[1:])
        if chance.random() < 0.5:
            service.kill()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(service.start)
        elif service.process is not None:
            service.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(1.2)
            service.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.3)


async def history(services: list[Service], token: str, *, seconds: float, is_hidden: bool = True) -> list[Operation]:
    """Savers, readers that say what they know, plain readers and demanding ones, at all services, under harm.

    Who saves, demands or is killed has its memory brought up to date: without that no fault of it is hidden.
    """
    until = after(seconds)
    work: list[Coroutine[Any, Any, list[Operation] | None]] = [harmed(services, until=until)] if is_hidden else []
    for number, service in enumerate(services):
        names = iter(f"{number}{letter}" for letter in "abcdef")

        def caller(service: Service = service, names: object = names) -> ConfigClient:
            return ConfigClient(service, token, KEY, name=next(names))  # type: ignore[call-overload]

        work.append(read_repeatedly(caller(), until=until, pause_seconds=0.005))
        if is_hidden or number == 0:
            work.append(merge_repeatedly(caller(), until=until, pause_seconds=0.05))
        if is_hidden:
            work += [
                read_repeatedly(caller(), until=until, pause_seconds=0.005, sends_min_version=True),
                read_repeatedly(caller(), until=until, pause_seconds=0.01, kind="fresh"),
            ]
    histories = await asyncio.gather(*work)
    return [op for ops in histories for op in ops or []]


def sessions(ops: list[Operation]) -> list[Operation]:
    """The operations of those clients that always say what they know."""
    return [op for op in ops if op.client.endswith("c") and op.kind == "read"]


async def test_a_history_under_harm_is_linearizable_within_the_bound(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 3, database=database) as services:
        ops = await history(services, services[0].add_admin(), seconds=8)
        final = await final_markers(services[0])
    print(f"C-lin: {len(ops)} operations, {len(final)} versions")
    assert len(ops) > 500
    assert find_violations(ops, final) == []
    assert find_session_violations(sessions(ops)) == []


async def test_the_same_history_of_a_cache_that_only_counts_time_has_faults(
    tmp_path: Path, database: str | None
) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault=TIME_ONLY) as services:
        ops = await history(services, services[0].add_admin(), seconds=3, is_hidden=False)
        final = await final_markers(services[0])
    assert any("stale" in violation for violation in find_violations(ops, final))


async def test_an_observer_finds_all_processes_of_one_mind(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 3, database=database) as services:
        seen = await observe(services, services[0].add_admin(), KEY, seconds=4)
    print(f"C-observer: {seen}")
    assert seen.changes > 20
    assert seen.inconsistencies == 0


async def test_an_observer_finds_out_who_only_counts_time(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault=TIME_ONLY) as services:
        seen = await observe(services, services[0].add_admin(), KEY, seconds=3)
    assert seen.inconsistencies > 0


# The long forms: the figures of reliability.md, 2.5, as they were promised.


@pytest.mark.long
@pytest.mark.timeout(1_200)
async def test_a_hundred_thousand_reads_are_fresh(tmp_path: Path, database: str | None) -> None:
    ages: list[float] = []
    async with run_cluster(tmp_path, 4, database=database) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        while len(ages) < 100_000:
            ages += await stale_reads(services, token, seconds=20)
    tell("C-stale", ages)
    assert max(ages) <= BOUND_SECONDS


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_two_hundred_pauses(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 2, database=database) as services:
        ages = await paused(services, await asyncio.to_thread(services[0].add_admin), pauses=200)
    tell("C-pause", ages)
    assert max(ages) <= BOUND_SECONDS


@pytest.mark.long
@pytest.mark.timeout(1_200)
async def test_a_hundred_stalls_of_the_change_feed(tmp_path: Path, postgres: PostgresServer) -> None:
    ages = await stalled(tmp_path, postgres, stalls=100)
    tell("C-stall", ages)
    assert max(ages) <= BOUND_SECONDS


@pytest.mark.long
@pytest.mark.timeout(1_200)
async def test_a_history_of_a_hundred_thousand_operations(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 4, database=database) as services:
        ops = await history(services, await asyncio.to_thread(services[0].add_admin), seconds=150)
        final = await final_markers(services[0])
    print(f"C-lin: {len(ops)} operations, {len(final)} versions")
    assert find_violations(ops, final) == []
    assert find_session_violations(sessions(ops)) == []
