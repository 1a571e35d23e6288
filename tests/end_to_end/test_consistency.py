"""Reads of a cluster whose processes are killed, paused and cut off.

On one machine, no unmarked answer misses a save that was answered before. On several, none is older than a second.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from confide.names import ConfigKey
from support.app import TYPE
from support.cluster import ConfigClient, merge_repeatedly, read_repeatedly, run_cluster
from support.histories import load_histories
from support.linearizability import Operation, find_session_violations, find_violations, measure_staleness
from support.observer import observe
from support.postgres import PostgresServer
from support.processes import Service
from support.proxy import Proxy
from support.waiting import build_stop_condition, wait_until_async

KEY = ConfigKey("acme", TYPE)
# The lease guarantees it however slow the machine is: every test may assert it.
STALENESS_SECONDS = 1.0
# Long enough to see a stale answer of a faulty cache.
STALE_AFTER_SECONDS = STALENESS_SECONDS + 0.3
# Without a save for so long, the paused process may hold the write lock of SQLite.
LOCKED_SECONDS = 20.0
# As on several machines: only the change feed connects the processes.
MACHINES = "private-stamps"
NO_LEASE = f"{MACHINES},no-lease"
# An ordinary cache, whose entries end only by their time to live.
TTL_ONLY = f"{NO_LEASE},no-change-feed"


async def load_final_markers(service: Service) -> list[str]:
    """Load the markers of the key from the database, in the order of their versions."""
    histories = await load_histories(service.folder.parent / "data", service._env.get("CONFIDE_DATABASE"))
    order: list[str] = []
    for document in histories.get(KEY, []):
        order += [marker for marker in document or {} if marker not in order]
    return order


def has_time_for_stale_reads(writer: ConfigClient, reader: ConfigClient) -> bool:
    """Return whether the reader still reads long after a save that its first answer could not show."""
    if len(writer.operations) <= 10 or len(reader.operations) <= 20:
        return False
    first_read = reader.operations[0].ret
    later_saves = [op.ret for op in writer.operations if op.call > first_read]
    return bool(later_saves) and reader.operations[-1].call > min(later_saves) + STALE_AFTER_SECONDS


async def measure_stale_reads(services: list[Service], token: str, *, min_seconds: float) -> list[float]:
    """Save at the first service and read at all others. Return the staleness of each read in seconds."""
    writer, *readers = [ConfigClient(service, token, KEY, name=f"{n}") for n, service in enumerate(services)]
    is_over = build_stop_condition(
        min_seconds=min_seconds,
        has_enough=lambda: all(has_time_for_stale_reads(writer, reader) for reader in readers),
    )
    writes, *reads = await asyncio.gather(
        merge_repeatedly(writer, until=is_over, pause_seconds=0.02),
        *(read_repeatedly(reader, until=is_over, pause_seconds=0.001) for reader in readers),
    )
    return measure_staleness([op for ops in reads for op in ops], writes)


def report(what: str, ages: list[float]) -> None:
    ages = sorted(ages)
    p99 = ages[len(ages) * 99 // 100]
    print(f"{what}: {len(ages)} reads, p99 {p99 * 1e3:.1f} ms, max {ages[-1] * 1e3:.1f} ms")


async def test_reads_in_other_processes_are_fresh_within_a_second(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 3, database=database, fault=MACHINES) as services:
        ages = await measure_stale_reads(services, services[0].add_admin(), min_seconds=4)
    report("C-stale", ages)
    assert max(ages) <= STALENESS_SECONDS


async def test_a_cache_with_only_a_time_to_live_is_detected(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault=TTL_ONLY) as services:
        ages = await measure_stale_reads(services, services[0].add_admin(), min_seconds=1)
    assert max(ages) > STALENESS_SECONDS


async def measure_under_stalls(
    tmp_path: Path, postgres: PostgresServer, *, stalls: int, fault: str = MACHINES
) -> list[float]:
    """Measure staleness while the connection of the change feed stalls; reads use another connection."""
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
                ages += await measure_stale_reads(services, token, min_seconds=2.5)
                proxy.heal()
                ages += await measure_stale_reads(services, token, min_seconds=1)
    finally:
        await proxy.stop()
    return ages


async def test_a_stalled_change_feed_makes_no_read_older_than_a_second(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    ages = await measure_under_stalls(tmp_path, postgres, stalls=2)
    report("C-stall", ages)
    assert max(ages) <= STALENESS_SECONDS


async def test_a_stalled_change_feed_without_the_lease_is_detected(tmp_path: Path, postgres: PostgresServer) -> None:
    assert max(await measure_under_stalls(tmp_path, postgres, fault=NO_LEASE, stalls=1)) > STALENESS_SECONDS


async def measure_after_pauses(services: list[Service], token: str, *, pauses: int) -> list[float]:
    """Pause one process while the other saves. Measure the reads that reach the paused process before it resumes."""
    ages: list[float] = []
    while pauses:
        async with ConfigClient(services[1], token, KEY) as before:
            await before.read()
            await before.read()
        found = await measure_after_pause(services, token, name=f"{len(ages)}")
        ages += found
        pauses -= bool(found)
    return ages


async def measure_after_pause(services: list[Service], token: str, *, name: str) -> list[float]:
    process = services[1].process
    assert process is not None
    is_over = asyncio.Event()
    writer = ConfigClient(services[0], token, KEY, name=f"w{name}")
    readers = [ConfigClient(services[1], token, KEY) for _ in range(4)]
    process.send_signal(signal.SIGSTOP)
    paused_at = time.monotonic()
    writing = asyncio.create_task(merge_repeatedly(writer, until=is_over.is_set, pause_seconds=0.05))

    def has_old_save() -> bool:
        return any(op.ret < time.monotonic() - STALE_AFTER_SECONDS for op in writer.operations)

    await wait_until_async(
        lambda: has_old_save() or time.monotonic() > paused_at + LOCKED_SECONDS, "a save during the pause"
    )
    reading = [
        asyncio.create_task(read_repeatedly(reader, until=lambda reader=reader: bool(reader.operations)))  # type: ignore[misc]
        for reader in readers
    ]
    await wait_until_async(lambda: all(reader.is_waiting for reader in readers), "the reads are sent")
    is_old = has_old_save()
    process.send_signal(signal.SIGCONT)
    reads = [op for ops in await asyncio.gather(*reading) for op in ops]
    is_over.set()
    writes = await writing
    return measure_staleness(reads, writes) if is_old else []


async def test_a_paused_process_answers_nothing_older_than_a_second(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault=MACHINES) as services:
        ages = await measure_after_pauses(services, services[0].add_admin(), pauses=2)
    report("C-pause", ages)
    assert max(ages) <= STALENESS_SECONDS


async def test_a_pause_without_the_lease_is_detected(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault=TTL_ONLY) as services:
        assert max(await measure_after_pauses(services, services[0].add_admin(), pauses=1)) > STALENESS_SECONDS


async def disturb(services: list[Service], *, until: Callable[[], bool]) -> None:
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


async def record_history(
    services: list[Service], token: str, *, min_seconds: float, min_operations: int, is_disturbed: bool = True
) -> list[Operation]:
    """Record the operations of writers and of plain, fresh and session readers at all services.

    Saves, fresh reads and restarts update the cache of their service. Without them no staleness of it is hidden.
    """
    clients: list[ConfigClient] = []

    def has_enough() -> bool:
        return sum(len(client.operations) for client in clients) > min_operations

    until = build_stop_condition(min_seconds=min_seconds, has_enough=has_enough)
    work: list[Coroutine[Any, Any, object]] = [disturb(services, until=until)] if is_disturbed else []
    for number, service in enumerate(services):
        plain, writer, session, fresh = [ConfigClient(service, token, KEY, name=f"{number}{kind}") for kind in "abcd"]
        clients += [plain, writer, session, fresh]
        work.append(read_repeatedly(plain, until=until, pause_seconds=0.005))
        if is_disturbed or number == 0:
            work.append(merge_repeatedly(writer, until=until, pause_seconds=0.05))
        if is_disturbed:
            work += [
                read_repeatedly(session, until=until, pause_seconds=0.005, sends_min_version=True),
                read_repeatedly(fresh, until=until, pause_seconds=0.01, kind="fresh"),
            ]
    await asyncio.gather(*work)
    return list(itertools.chain.from_iterable(client.operations for client in clients))


def select_sessions(operations: list[Operation]) -> list[Operation]:
    """Select the operations of the clients that send the newest version that they know."""
    return [op for op in operations if op.client.endswith("c")]


def find_violations_on_one_machine(ops: list[Operation], final: list[str], *, engine: str) -> list[str]:
    """Find violations of the promise for one machine: no read misses an answered save.

    On SQLite no read goes behind another one either. On PostgreSQL it can, for a second at most.
    """
    if engine == "sqlite":
        return find_violations(ops, final, bound_seconds=0)
    return find_violations(ops, final) + find_violations(
        [op for op in ops if op.kind != "fresh"], final, bound_seconds=0, ignores_reads=True
    )


async def test_a_history_under_disturbances_is_linearizable_on_one_machine(
    tmp_path: Path, database: str | None, engine: str
) -> None:
    async with run_cluster(tmp_path, 3, database=database) as services:
        ops = await record_history(services, services[0].add_admin(), min_seconds=8, min_operations=500)
        final = await load_final_markers(services[0])
    print(f"C-lin: {len(ops)} operations, {len(final)} versions")
    assert find_violations_on_one_machine(ops, final, engine=engine) == []
    assert find_session_violations(select_sessions(ops)) == []


async def test_a_history_without_shared_stamps_is_linearizable_only_within_the_bound(
    tmp_path: Path, database: str | None, engine: str
) -> None:
    async with run_cluster(tmp_path, 3, database=database, fault=MACHINES) as services:
        ops = await record_history(services, services[0].add_admin(), min_seconds=8, min_operations=500)
        final = await load_final_markers(services[0])
    assert find_violations(ops, final) == []
    assert find_violations_on_one_machine(ops, final, engine=engine) != []
    assert find_session_violations(select_sessions(ops)) == []


async def test_the_history_of_a_cache_with_only_a_time_to_live_has_violations(
    tmp_path: Path, database: str | None
) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault=TTL_ONLY) as services:
        ops = await record_history(
            services, services[0].add_admin(), min_seconds=3, min_operations=100, is_disturbed=False
        )
        final = await load_final_markers(services[0])
    assert any("stale" in violation for violation in find_violations(ops, final))


async def test_an_observer_finds_every_process_up_to_date(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 3, database=database, fault=MACHINES) as services:
        token = services[0].add_admin()
        seen = await observe(services, token, KEY, min_seconds=4, has_enough=lambda seen: seen.checks > 60)
    print(f"C-observer: {seen}")
    assert seen.changes > 20
    assert seen.stale_answers == 0


async def test_an_observer_detects_a_cache_with_only_a_time_to_live(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault=TTL_ONLY) as services:
        token = services[0].add_admin()
        seen = await observe(services, token, KEY, min_seconds=0, has_enough=lambda seen: seen.stale_answers > 0)
    assert seen.stale_answers > 0


# The long forms of the tests above.


@pytest.mark.long
@pytest.mark.timeout(1_200)
async def test_a_hundred_thousand_reads_are_fresh(tmp_path: Path, database: str | None) -> None:
    ages: list[float] = []
    async with run_cluster(tmp_path, 4, database=database, fault=MACHINES) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        while len(ages) < 100_000:
            ages += await measure_stale_reads(services, token, min_seconds=20)
    report("C-stale", ages)
    assert max(ages) <= STALENESS_SECONDS


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_no_read_after_two_hundred_pauses_is_stale(tmp_path: Path, database: str | None) -> None:
    async with run_cluster(tmp_path, 2, database=database, fault=MACHINES) as services:
        ages = await measure_after_pauses(services, await asyncio.to_thread(services[0].add_admin), pauses=200)
    report("C-pause", ages)
    assert max(ages) <= STALENESS_SECONDS


@pytest.mark.long
@pytest.mark.timeout(1_200)
async def test_no_read_during_a_hundred_stalls_of_the_change_feed_is_stale(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    ages = await measure_under_stalls(tmp_path, postgres, stalls=100)
    report("C-stall", ages)
    assert max(ages) <= STALENESS_SECONDS


@pytest.mark.long
@pytest.mark.timeout(1_200)
async def test_a_history_of_a_hundred_thousand_operations_is_linearizable(
    tmp_path: Path, database: str | None, engine: str
) -> None:
    async with run_cluster(tmp_path, 4, database=database) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        ops = await record_history(services, token, min_seconds=150, min_operations=10_000)
        final = await load_final_markers(services[0])
    print(f"C-lin: {len(ops)} operations, {len(final)} versions")
    assert find_violations_on_one_machine(ops, final, engine=engine) == []
    assert find_session_violations(select_sessions(ops)) == []
