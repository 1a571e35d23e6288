"""The load of the failover tests, on a service without a failover, finds what a faulty service does."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from support.failover import check_load, create_load_token, create_probe_table
from support.failover_checks import FailoverResult
from support.failover_load import FailoverLoad
from support.postgres import PostgresServer
from support.processes import FAULTY_SERVICE, run_service
from support.waiting import wait_until_async

SAVES = 60


async def run_load(folder: Path, postgres: PostgresServer, *, fault: str = "") -> FailoverResult:
    """Load a service with two workers until it has answered enough saves, and check the result."""
    database, probe = postgres.new_database(), postgres.new_database()
    await create_probe_table(probe)
    program, env = (FAULTY_SERVICE, {"FAULT": fault}) if fault else (("-m", "confide"), {})
    with run_service(folder, "--workers", "2", database=database, program=program, env=env) as service:
        session = await asyncio.to_thread(service.add_admin)
        token = await asyncio.to_thread(create_load_token, service, session)
        load = FailoverLoad(service, token, [probe])
        await load.prepare()
        await load.start()
        since = time.monotonic()
        await wait_until_async(lambda: load.record.count_saved(since=since) > SAVES, "enough saves")
        await load.stop()
        return await check_load(load, service, database)


async def test_a_service_without_a_fault_has_no_finding(tmp_path: Path, postgres: PostgresServer) -> None:
    result = await run_load(tmp_path, postgres)
    assert result.details == []
    assert result.saves > SAVES
    assert result.reads > SAVES


@pytest.mark.parametrize(("fault", "finding"), [("lose-save", "saves_lost"), ("swallow-events", "watcher_violations")])
async def test_the_load_finds_a_deliberate_fault(
    tmp_path: Path, postgres: PostgresServer, fault: str, finding: str
) -> None:
    result = await run_load(tmp_path, postgres, fault=fault)
    assert getattr(result, finding) > 0, result
