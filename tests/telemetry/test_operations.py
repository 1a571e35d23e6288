"""Each wait of a store is noted, on both engines alike: what it was, how it ended, and for which request."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from confide.caching.single_flight import SingleFlight
from confide.context import NO_REQUEST, Trace, current_request, set_deadline
from confide.database.engine import Many, Statement, Transaction, statement
from confide.errors import Busy, DatabaseUnavailable
from confide.identity.hasher import Argon2Hasher
from confide.server.preparation import build_stores, prepare
from confide.server.settings import Settings
from confide.telemetry.events import EventRecorder, build_documents
from confide.web.request_scope import RequestCounter
from support.app import RunningApp


class Watched(NamedTuple):
    """An engine and what it noted."""

    engine: Any
    recorder: EventRecorder

    def taken(self) -> list[dict[str, Any]]:
        return list(build_documents(self.recorder.take()))

    def ended(self) -> Counter[tuple[str, str]]:
        return Counter((one["operation"], one["outcome"]) for one in self.taken())


@pytest.fixture
async def watched(settings: Settings) -> AsyncIterator[Watched]:
    await prepare(settings)
    recorder = EventRecorder(worker="w", max_events=10_000)
    store: Any = build_stores(settings.model_copy(update={"pool_size": 1}), io=recorder)
    await store.database.connect()
    recorder.take()
    yield Watched(store.database._host_engine, recorder)
    await store.close()


def erased(count: int, *, fails: bool = False) -> Transaction[int]:
    rows = yield statement("/* test.count */ SELECT count(*) FROM tokens")
    yield Many("/* test.erase */ DELETE FROM tokens WHERE id = $1", [(-number,) for number in range(1, count + 1)])
    if fails:
        yield Statement("/* test.broken */ SELECT one FROM nowhere")
    return int(rows[0][0])


async def test_statements_and_transactions_are_noted_by_name_with_their_rows(watched: Watched, engine: str) -> None:
    request = watched.recorder.begin_request("abc")
    current_request.set(replace(NO_REQUEST, trace=request))
    await watched.engine.query("/* test.two */ SELECT 1 UNION ALL SELECT 2")
    assert await watched.engine.transact(erased(3)) == 0
    events = watched.taken()
    assert {one["request_id"] for one in events} == {"abc"}
    assert {one["parent"] for one in events} == {request.event_id}
    names = [one["operation"] for one in events]
    around = ["begin"] if engine == "postgres" else ["wait writer"]
    assert names == ["sql test.two", *around, "sql test.count", "sql test.erase", "commit"]
    assert [one["amount"] for one in events if one["operation"] in ("sql test.two", "sql test.count")] == [2, 1]
    assert {one["outcome"] for one in events} == {"ok"}


async def test_a_statement_that_fails_is_noted_with_the_class_of_its_error(watched: Watched, engine: str) -> None:
    with pytest.raises(Exception, match="nowhere"):
        await watched.engine.transact(erased(1, fails=True))
    ended = watched.ended()
    broken = "UndefinedTableError" if engine == "postgres" else "SQLError"
    assert ended["sql test.broken", broken] == 1
    assert ("commit", "ok") not in ended
    assert ("rollback", "ok") in ended or engine == "sqlite"


async def test_a_transaction_given_up_leaves_one_wait_and_nothing_after_it(watched: Watched, engine: str) -> None:
    if engine == "sqlite":
        lock = os.open(watched.engine.path.with_name("confide.lock"), os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
    held = watched.engine.connection() if engine == "postgres" else None
    if held is not None:
        await held.__aenter__()
    set_deadline(time.monotonic() + 0.3)
    try:
        with pytest.raises((DatabaseUnavailable, Busy)):
            await watched.engine.transact(erased(1))
    finally:
        if held is not None:
            await held.__aexit__(None, None, None)
        else:
            os.close(lock)
    set_deadline(None)
    await watched.engine.transact(erased(1))  # whose turn comes after all that was given up
    taken = watched.taken()
    waits = [one for one in taken if one["operation"] in ("wait connection", "wait writer") and one["outcome"] != "ok"]
    assert [(one["operation"], one["outcome"]) for one in waits] == [
        ("wait connection" if engine == "postgres" else "wait writer", "TimeoutError")
    ]
    assert sum(one["operation"] == "sql test.erase" for one in taken) == 1
    assert 0.2 < (waits[0]["ended_ns"] - waits[0]["began_ns"]) / 1e9 < 1.5


async def test_a_cancelled_wait_for_a_connection_or_the_writer_is_noted(watched: Watched, engine: str) -> None:
    if engine == "postgres":
        async with watched.engine.connection():
            waiting = asyncio.create_task(watched.engine.query("/* test.one */ SELECT 1"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert watched.ended()["wait connection", "CancelledError"] == 1
        return
    lock = os.open(watched.engine.path.with_name("confide.lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    waiting = asyncio.create_task(watched.engine.transact(erased(1)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.close(lock)
    await watched.engine.transact(erased(1))  # whose turn comes after the one that was given up
    ended = watched.ended()
    assert ended["wait writer", "CancelledError"] == 1
    assert ended["sql test.erase", "ok"] == 1


async def test_only_those_who_wait_for_a_connection_say_so(watched: Watched, engine: str) -> None:
    asked = [watched.engine.query("/* test.one */ SELECT 1") for _ in range(4)]
    await asyncio.gather(*asked)
    ended = watched.ended()
    assert ended["sql test.one", "ok"] == 4
    assert ended["wait connection", "ok"] == (3 if engine == "postgres" else 0)


async def test_of_a_question_that_several_share_each_notes_its_own_wait() -> None:
    recorder = EventRecorder(worker="w", max_events=100)
    answering = asyncio.Event()

    async def ask(name: str) -> str:
        recorder.record(f"sql {name}", 0)
        await answering.wait()
        return name

    shared = SingleFlight(ask, io=recorder)

    async def wanted(number: int) -> str:
        current_request.set(replace(NO_REQUEST, trace=Trace(number, str(number))))
        return await shared.get("one")

    asking = [asyncio.create_task(wanted(number)) for number in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answering.set()
    assert await asyncio.gather(*asking) == ["one"] * 3
    events = sorted((one["operation"], one["request_id"]) for one in build_documents(recorder.take()))
    assert events == [("sql one", "0"), ("wait shared", "1"), ("wait shared", "2")]


async def test_a_hash_is_noted_apart_from_the_wait_for_its_turn() -> None:
    recorder = EventRecorder(worker="w", max_events=100)
    hasher = Argon2Hasher(memory_kib=64, io=recorder)
    known = await hasher.hash("violet kettle")
    await asyncio.gather(*(hasher.verify("violet kettle", known) for _ in range(5)))
    hasher.close()
    ended = Counter((one["operation"], one["outcome"]) for one in build_documents(recorder.take()))
    assert ended == {("hash password", "ok"): 6, ("wait hash", "ok"): 6}


def test_traffic_is_counted_by_route_and_status() -> None:
    traffic = RequestCounter()
    for status in (200, 200, 404):
        traffic.count("GET /config", status)
    assert traffic.requests == {("GET /config", "200"): 2, ("GET /config", "404"): 1}


async def test_a_long_search_neither_blocks_reads_nor_delays_shutdown(sqlite_app: RunningApp) -> None:
    """PostgreSQL's reads wait on no loop anyway."""
    engine: Any = sqlite_app.process.stores.database._host_engine
    endless = "/* test.endless */ WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    set_deadline(time.monotonic() + 1.0)
    searching = [asyncio.create_task(engine.search(endless)) for _ in range(2)]
    set_deadline(None)
    await asyncio.sleep(0.1)
    for _ in range(100):
        assert list(await engine.query("/* test.one */ SELECT 1")) == [(1,)]
    assert not any(task.done() for task in searching)
    found = await asyncio.gather(*searching, return_exceptions=True)
    assert [type(error) for error in found] == [DatabaseUnavailable, DatabaseUnavailable]
    gone = asyncio.create_task(engine.search(endless))
    await asyncio.sleep(0.1)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert list(await engine.search("/* test.one */ SELECT 1")) == [(1,)]
    # Nor does the end wait for what is under way.
    left = [asyncio.create_task(engine.search(endless)) for _ in range(3)]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await engine.close()
    assert time.monotonic() - began < 1.0
    await asyncio.wait(left)
    await engine.open()
