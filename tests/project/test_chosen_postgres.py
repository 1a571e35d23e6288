"""The environment chooses the PostgreSQL of the tests, and no test of another database runs on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.chosen_postgres import RUNNING, find_running_server
from support.postgres import BINARIES, DISTRIBUTION, find_binaries, find_distribution_binaries

ROOT = Path(__file__).parents[2]


def test_a_choice_of_binaries_comes_before_a_running_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BINARIES, raising=False)
    monkeypatch.setenv(RUNNING, "postgresql://confide@127.0.0.1:1/confide")
    assert find_running_server() == "postgresql://confide@127.0.0.1:1/confide"
    monkeypatch.setenv(BINARIES, DISTRIBUTION)
    assert find_running_server() is None
    assert find_binaries() == find_distribution_binaries()


def test_the_tests_of_a_chosen_server_are_those_that_use_it() -> None:
    """Also those whose names lack the engine, as in the change feed."""
    tests = ["tests/changes/test_change_feed.py", "tests/audit/test_audit_log.py", "tests/end_to_end/test_outage.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *tests],
        cwd=ROOT,
        env={**os.environ, BINARIES: DISTRIBUTION},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "test_a_new_connection_continues_from_the_last_read" in done.stdout
    assert "test_outage.py::test_a_worker_that_ends_during_an_outage_starts_again_after_it" in done.stdout
    assert "[postgresql" in done.stdout
    assert "[sqlite" not in done.stdout
