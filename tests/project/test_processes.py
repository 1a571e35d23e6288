"""The processes that tests start end with their test."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.bounds import BUSY, assert_within
from support.processes import FAULTY_SERVICE, Service, end_process_group, list_group, run_service, start_process
from support.waiting import wait_until


def test_a_service_that_ignores_sigterm_is_killed_with_its_workers_and_reaped(tmp_path: Path) -> None:
    service = Service(tmp_path, "--workers", "2", program=FAULTY_SERVICE, env={"FAULT": "ignore-sigterm"})
    service.start()
    process = service.process
    assert process is not None
    assert len(list_group(process.pid)) >= 3
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    service.end(grace_seconds=0.5)
    assert process.returncode == -signal.SIGKILL
    assert list_group(process.pid) == []


def test_a_service_ends_cleanly_after_a_failed_test(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def fail() -> None:
        with run_service(tmp_path, "--workers", "2") as service:
            assert service.process is not None
            started.append(service.process)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert started[0].returncode == 0
    assert list_group(started[0].pid) == []


def test_a_stopped_process_ends() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    process.send_signal(signal.SIGSTOP)
    end_process_group(process)
    assert process.returncode == -signal.SIGTERM


def test_children_that_outlive_their_parent_end(tmp_path: Path) -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ready', 'w'); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    with start_process([sys.executable, "-c", parent], cwd=tmp_path) as process:
        wait_until((tmp_path / "ready").exists, "the child runs")
        process.wait()
        assert list_group(process.pid)
    assert list_group(process.pid) == []


def test_a_bound_is_asserted_unless_the_machine_is_busy_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BUSY, raising=False)
    assert_within(1.0, 1.0, "a save")
    with pytest.raises(AssertionError, match=r"a save took 1\.100 s"):
        assert_within(1.1, 1.0, "a save")
    monkeypatch.setenv(BUSY, "1")
    assert_within(1.1, 1.0, "a save")


def test_waiting_for_a_condition_that_never_holds_fails() -> None:
    with pytest.raises(AssertionError, match="the sun: not within"):
        wait_until(lambda: False, "the sun", max_seconds=0.1)
