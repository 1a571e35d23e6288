"""What an idle service costs the PostgreSQL of the distribution, with its defaults."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from support.bounds import is_busy
from support.distribution import DistributionServer
from support.processes import run_service

OBSERVED_SECONDS = 10
MAX_SHARE = 0.01
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def read_cpu_seconds(pids: list[int]) -> float:
    """Return the user and system time of processes."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / TICKS_PER_SECOND


async def test_two_idle_workers_cost_the_database_less_than_a_hundredth_of_a_core(tmp_path: Path) -> None:
    server = DistributionServer()
    try:
        server.start()
        with run_service(tmp_path, "--workers", "2", database=server.new_database(), is_unsafe=False) as service:
            service.add_admin()
            await asyncio.sleep(2)  # the pool and the plans of the first seconds are not idle
            sessions = [
                row[0]
                for row in await server.fetch(
                    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
            ]
            before = read_cpu_seconds(sessions)
            await asyncio.sleep(OBSERVED_SECONDS)
            share = (read_cpu_seconds(sessions) - before) / OBSERVED_SECONDS
        assert len(sessions) >= 2
        print(f"{share:.2%} of a core")
        assert is_busy() or share < MAX_SHARE
    finally:
        server.remove()
