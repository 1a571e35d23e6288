"""The supervisor replaces workers that ended or hang, and leaves slow ones alone."""

from __future__ import annotations

from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any, cast

import pytest

from confide.server import supervisor
from confide.server.supervisor import MAX_SILENT_SECONDS, MAX_START_SECONDS, _Watched


@pytest.mark.parametrize(("has_answered", "limit"), [(False, MAX_START_SECONDS), (True, MAX_SILENT_SECONDS)])
def test_a_worker_hangs_only_after_a_long_silence(has_answered: bool, limit: float) -> None:
    ours, theirs = Pipe()
    watched = _Watched(cast("Any", SimpleNamespace(parent_conn=ours)), 0.0, has_answered=has_answered)
    assert not watched.is_hung(100.0)
    assert not watched.is_hung(100.0 + limit)
    assert watched.is_hung(100.1 + limit)
    theirs.send(True)  # a late answer, after the machine was busy
    assert not watched.is_hung(101.0 + limit)
    assert theirs.recv() == b"ping"
    ours.close()
    theirs.close()


def test_a_busy_machine_gets_more_than_the_usual_five_seconds() -> None:
    assert supervisor.MAX_START_SECONDS > supervisor.MAX_SILENT_SECONDS >= 30
