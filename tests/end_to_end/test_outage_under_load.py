"""Readers go on while PostgreSQL is away: no wrong answer, each unproven one says so, and all is well soon after."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from confide.names import Key
from support.app import TYPE
from support.cluster import ConfigClient, merge_repeatedly, run_cluster
from support.linearizability import Operation, measure_staleness
from support.postgres import LocalPostgresServer
from support.processes import Service

KEY = Key("acme", TYPE)
LONGEST_SECONDS = 2.5
BACK_SECONDS = 3.0


@dataclass(frozen=True)
class Seen:
    """One answer: when it was asked for and came, its status and version, and whether it said that it is stale."""

    call: float
    ret: float
    status: int
    version: int
    is_stale: bool


async def readings(service: Service, token: str, *, until: Callable[[], bool]) -> list[Seen]:
    found = []
    async with ConfigClient(service, token, KEY) as caller:
        while not until():
            call = time.monotonic()
            reply = await caller.read()
            assert reply is not None, "a read was not answered"
            version = int(reply.header("config-version") or 0)
            is_stale = reply.header("config-freshness") is not None
            found.append(Seen(call, time.monotonic(), reply.status, version, is_stale))
            await asyncio.sleep(0.005)
    return found


async def endured(tmp_path: Path, *, seconds: float, hangs: bool) -> None:
    server = LocalPostgresServer(options=())
    server.start()
    leaves: Any = (server.signal_all, signal.SIGSTOP) if hangs else (server.kill,)
    returns: Any = (server.signal_all, signal.SIGCONT) if hangs else (server.start,)
    try:
        async with run_cluster(tmp_path, 2, database=server.new_database()) as services:
            token = await asyncio.to_thread(services[0].add_admin)
            is_over = asyncio.Event()
            readers = [
                asyncio.create_task(readings(service, token, until=is_over.is_set))
                for service in services
                for _ in range(4)
            ]
            writer = asyncio.create_task(
                merge_repeatedly(
                    ConfigClient(services[0], token, KEY, name="w"), until=is_over.is_set, pause_seconds=0.0
                )
            )
            await asyncio.sleep(1)
            away_at = time.monotonic()
            await asyncio.to_thread(*leaves)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(*returns)
            back_at = time.monotonic()
            await asyncio.sleep(BACK_SECONDS + 1)
            is_over.set()
            seen = [one for found in await asyncio.gather(*readers) for one in found]
            written = await writer
    finally:
        server.remove()
    judged(seen, written, away_at=away_at, back_at=back_at)


def judged(seen: list[Seen], written: list[Operation], *, away_at: float, back_at: float) -> None:
    assert max(one.ret - one.call for one in seen) < LONGEST_SECONDS
    # Before the first save there is nothing, and for a second it may be answered so; after that it is never refused.
    first = min(op.ret for op in written) + 1.0
    refused = [(one.status, one.is_stale, one.call - away_at) for one in seen if one.call > first and one.status != 200]
    away = f"away for {back_at - away_at:.2f} s, first save at {first - 1.0 - away_at:.2f} s"
    assert not refused, f"{len(refused)} refused, {away}; status, stale, asked at: {refused[:5]} to {refused[-5:]}"
    stale = [one for one in seen if one.is_stale]
    assert stale
    assert all(away_at < one.ret and one.call < back_at + BACK_SECONDS for one in stale)
    assert any(one.call > back_at and not one.is_stale for one in seen)
    proven = [
        Operation("r", "read", one.call, one.ret, one.version) for one in seen if not one.is_stale and one.status == 200
    ]
    assert max(measure_staleness(proven, written)) <= 1.0
    saved_after = [op for op in written if op.version is not None and op.call > back_at]
    assert saved_after
    assert min(op.ret for op in saved_after) < back_at + BACK_SECONDS
    print(f"{len(seen)} reads, {len(stale)} marked stale, {len(written)} saves tried")


@pytest.mark.parametrize("hangs", [False, True], ids=["down", "hang"])
async def test_reads_go_on_and_say_what_they_are_while_the_database_is_away(tmp_path: Path, hangs: bool) -> None:
    await endured(tmp_path, seconds=4, hangs=hangs)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("hangs", "seconds"), [(False, 60), (True, 30)], ids=["down", "hang"])
async def test_reads_go_on_for_as_long_as_it_takes(tmp_path: Path, hangs: bool, seconds: float) -> None:
    await endured(tmp_path, seconds=seconds, hangs=hangs)
