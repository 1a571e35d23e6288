"""`kill -9` under writers: no acknowledged save is lost, and versions have no gaps."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from confide.names import ConfigKey
from support.histories import AcknowledgedSave, adds_one_marker_per_version, find_lost_saves, load_histories
from support.postgres import OwnPostgresServer
from support.processes import FAULTY_SERVICE, Service
from support.writers import merge_markers

WRITERS = 4


async def write_until_killed(
    service: Service, token: str, *, cycle: int, seconds: float, server: OwnPostgresServer | None
) -> list[AcknowledgedSave]:
    """Kill the service, and first the database server if given, while four writers save into two configs."""
    async with service.async_client(token) as client:
        keys = [ConfigKey("acme", f"type{number % 2}") for number in range(WRITERS)]
        names = [f"c{cycle}w{number}" for number in range(WRITERS)]
        writers = [
            asyncio.create_task(merge_markers(client, key, name, times=1_000))
            for key, name in zip(keys, names, strict=True)
        ]
        await asyncio.sleep(seconds)
        if server is not None:
            server.kill()
            await asyncio.sleep(0.05)
        service.kill()
        return [one for writer in await asyncio.gather(*writers) for one in writer]


async def run_crashes(
    tmp_path: Path, database: str | None, server: OwnPostgresServer | None, *, cycles: int, fault: str = ""
) -> list[str]:
    """Run that many crashes and return the violations in the database afterwards."""
    chance = random.Random(0)
    program = FAULTY_SERVICE if fault else ("-m", "confide")
    service = Service(
        tmp_path, "--workers", "2", database=database, program=program, is_unsafe=bool(fault), env={"FAULT": fault}
    )
    saved: list[AcknowledgedSave] = []
    token = ""
    for cycle in range(cycles):
        service.start()
        token = token or service.add_admin()
        killed_server = server if cycle % 4 == 3 else None
        seconds = chance.uniform(0.1, 0.5)
        saved += await write_until_killed(service, token, cycle=cycle, seconds=seconds, server=killed_server)
        if killed_server is not None:
            killed_server.start()
    histories = await load_histories(service.data, database)
    assert len(saved) > cycles * 4
    gaps = [
        f"{key}: a version does not add exactly one marker"
        for key, history in histories.items()
        if not adds_one_marker_per_version(history)
    ]
    return find_lost_saves(saved, histories) + gaps


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("cycles", [20, pytest.param(200, marks=pytest.mark.long)])
async def test_on_sqlite_no_acknowledged_save_is_lost(tmp_path: Path, cycles: int) -> None:
    assert await run_crashes(tmp_path, None, None, cycles=cycles) == []


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("cycles", [20, pytest.param(200, marks=pytest.mark.long)])
async def test_on_postgres_no_acknowledged_save_is_lost(
    tmp_path: Path, own_postgres: OwnPostgresServer, cycles: int
) -> None:
    assert await run_crashes(tmp_path, own_postgres.new_database(), own_postgres, cycles=cycles) == []


async def test_a_service_that_answers_before_the_commit_is_detected(tmp_path: Path, database: str | None) -> None:
    assert await run_crashes(tmp_path, database, None, cycles=2, fault="answer-before-commit") != []
