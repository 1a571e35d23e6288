"""A service on a machine whose processors are taken, and with workers that hang or end."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest

from confide.server.supervisor import MAX_SILENT_SECONDS, MIN_RESTART_SECONDS
from support.app import TYPE
from support.processes import Service, find_workers, run_service, start_process
from support.waiting import wait_until

# Each worker gets about a sixth of a processor of a machine with two of them.
BUSY_PROCESSES = 10
REPLACEMENTS = 4
# Of a busy machine, and of the checks of the supervisor.
MORE_SECONDS = 60


@contextmanager
def take_processors() -> Iterator[None]:
    """Keep all processors busy."""
    with ExitStack() as stack:
        for _ in range(BUSY_PROCESSES):
            stack.enter_context(start_process([sys.executable, "-c", "while True: pass"]))
        yield


@pytest.mark.long
def test_a_service_starts_and_keeps_its_workers_while_other_processes_take_the_processors(tmp_path: Path) -> None:
    with take_processors(), run_service(tmp_path, "--workers", "2") as service:
        workers = get_workers(service)
        assert len(workers) == 2
        token = service.add_admin()
        for number in range(20):
            with service.client(token) as client:
                document = {"tenant": "acme", "integration_type": TYPE, "configuration": {"n": number}}
                assert client.post("/config", json=document).status_code == 200
        assert get_workers(service) == workers
        assert service.stop() == 0
        assert not re.search("worker_(replaced|hung)", service.log.read_text())


def test_workers_that_end_soon_are_replaced_with_growing_pauses(tmp_path: Path) -> None:
    with run_service(tmp_path, "--workers", "2") as service:
        kept, ended = get_workers(service)
        for _ in range(REPLACEMENTS):
            kill_and_wait_for_replacement(service, ended)
            (ended,) = set(get_workers(service)) - {kept}
            assert httpx2.get(f"{service.url}/health/live").status_code == 200
        pauses = [after - before for before, after in pairwise(find_replacements(service))]
        assert all(pause >= MIN_RESTART_SECONDS * 2**number for number, pause in enumerate(pauses)), pauses


@pytest.mark.long
def test_a_hung_worker_is_replaced_while_the_other_serves(tmp_path: Path) -> None:
    with run_service(tmp_path, "--workers", "2") as service:
        hung, kept = get_workers(service)
        os.kill(hung, signal.SIGSTOP)
        stopped_at = time.monotonic()
        served = 0
        while not find_replacements(service):
            with suppress(httpx2.TimeoutException):  # the hung worker may hold the connection
                served += httpx2.get(f"{service.url}/health/live", timeout=1).status_code == 200
            assert time.monotonic() - stopped_at < MAX_SILENT_SECONDS + MORE_SECONDS
        assert time.monotonic() - stopped_at >= MAX_SILENT_SECONDS - 1  # a ping may have been on its way
        assert served > 0
        assert f"worker_hung pid={hung} " in service.log.read_text()
        assert kept in get_workers(service)
        assert hung not in get_workers(service)


def kill_and_wait_for_replacement(service: Service, worker: int) -> None:
    before = len(find_replacements(service))
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: len(find_replacements(service)) > before, "the worker is replaced")


def get_workers(service: Service) -> list[int]:
    assert service.process is not None
    return find_workers(service.process.pid)


def find_replacements(service: Service) -> list[float]:
    """Find the times of the replacements in the log, in seconds."""
    lines = [line for line in service.log.read_text().splitlines() if "worker_replaced" in line]
    times = [re.search(r'"timestamp": "([^"]+)"', line) for line in lines]
    return [datetime.fromisoformat(found[1]).timestamp() for found in times if found]
