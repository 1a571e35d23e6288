"""Reads continue while PostgreSQL is away: stale ones say so, none fails, and the service recovers soon."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from confide.names import ConfigKey
from support.app import TYPE
from support.bounds import assert_within, is_busy
from support.cluster import ConfigClient, merge_repeatedly, run_cluster
from support.linearizability import Operation, measure_staleness
from support.postgres import OwnPostgresServer
from support.processes import Service
from support.waiting import wait_until_async

KEY = ConfigKey("acme", TYPE)
# The service promises 2 s for a response. The rest is for the network and the client.
RESPONSE_SECONDS = 2.5
RECOVERY_SECONDS = 3.0
STALENESS_SECONDS = 1.0


@dataclass(frozen=True)
class Response:
    """A response with its start and end on the monotonic clock."""

    call: float
    ret: float
    status: int
    version: int
    is_stale: bool


async def record_reads(service: Service, token: str, *, responses: list[Response], until: Callable[[], bool]) -> None:
    async with ConfigClient(service, token, KEY) as client:
        while not until():
            call = time.monotonic()
            reply = await client.read()
            assert reply is not None, "a read had no response"
            version = int(reply.header("config-version") or 0)
            is_stale = reply.header("config-freshness") is not None
            responses.append(Response(call, time.monotonic(), reply.status, version, is_stale))
            await asyncio.sleep(0.005)


async def run_outage(tmp_path: Path, server: OwnPostgresServer, *, seconds: float, is_hanging: bool) -> None:
    start_outage: Any = (server.signal_all, signal.SIGSTOP) if is_hanging else (server.kill,)
    end_outage: Any = (server.signal_all, signal.SIGCONT) if is_hanging else (server.start,)
    async with run_cluster(tmp_path, 2, database=server.new_database()) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        is_over = asyncio.Event()
        responses: list[Response] = []
        readers = [
            asyncio.create_task(record_reads(service, token, responses=responses, until=is_over.is_set))
            for service in services
            for _ in range(4)
        ]
        writer = ConfigClient(services[0], token, KEY, name="w")
        writing = asyncio.create_task(merge_repeatedly(writer, until=is_over.is_set, pause_seconds=0.0))

        def count_saves(*, since: float) -> int:
            return sum(op.version is not None and op.call > since for op in writer.operations)

        await wait_until_async(lambda: count_saves(since=0) > 10, "saves before the outage")
        away_at = time.monotonic()
        await asyncio.to_thread(*start_outage)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(*end_outage)
        back_at = time.monotonic()
        await wait_until_async(lambda: count_saves(since=back_at) > 0, "a save after the outage")
        await asyncio.sleep(RECOVERY_SECONDS + 1)  # stale reads after the recovery would come now
        is_over.set()
        await asyncio.gather(*readers)
        writes = await writing
    check_reads(responses, writes, away_at=away_at, back_at=back_at)
    check_recovery(responses, writes, away_at=away_at, back_at=back_at)


def check_reads(responses: list[Response], writes: list[Operation], *, away_at: float, back_at: float) -> None:
    assert_within(max(one.ret - one.call for one in responses), RESPONSE_SECONDS, "a read")
    # Until a second after the first save, a read may still find no config.
    first = min(op.ret for op in writes) + STALENESS_SECONDS
    failed = [
        (one.status, one.is_stale, one.call - away_at) for one in responses if one.call > first and one.status != 200
    ]
    away = f"away for {back_at - away_at:.2f} s, first save at {first - STALENESS_SECONDS - away_at:.2f} s"
    assert not failed, f"{len(failed)} failed, {away}; status, is_stale, start: {failed[:5]} to {failed[-5:]}"
    fresh = [
        Operation("r", "read", one.call, one.ret, one.version)
        for one in responses
        if not one.is_stale and one.status == 200
    ]
    assert max(measure_staleness(fresh, writes)) <= STALENESS_SECONDS


def check_recovery(responses: list[Response], writes: list[Operation], *, away_at: float, back_at: float) -> None:
    stale = [one for one in responses if one.is_stale]
    assert stale
    assert is_busy() or all(away_at < one.ret for one in stale), "a stale read before the outage"
    assert_within(max(one.call for one in stale) - back_at, RECOVERY_SECONDS, "the last stale read after the outage")
    assert any(one.call > back_at and not one.is_stale for one in responses)
    saved_after = [op.ret for op in writes if op.version is not None and op.call > back_at]
    assert_within(min(saved_after) - back_at, RECOVERY_SECONDS, "the first save after the outage")
    print(f"{len(responses)} reads, {len(stale)} marked stale, {len(writes)} saves attempted")


@pytest.mark.parametrize("is_hanging", [False, True], ids=["down", "hang"])
async def test_reads_continue_and_stale_ones_say_so_during_an_outage(
    tmp_path: Path, own_postgres: OwnPostgresServer, is_hanging: bool
) -> None:
    await run_outage(tmp_path, own_postgres, seconds=4, is_hanging=is_hanging)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("is_hanging", "seconds"), [(False, 60), (True, 30)], ids=["down", "hang"])
async def test_reads_continue_during_a_long_outage(
    tmp_path: Path, own_postgres: OwnPostgresServer, is_hanging: bool, seconds: float
) -> None:
    await run_outage(tmp_path, own_postgres, seconds=seconds, is_hanging=is_hanging)
