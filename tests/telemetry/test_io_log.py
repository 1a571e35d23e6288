"""Both engines record each wait: the operation, its outcome and the request that waited."""

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
from confide.web.request_span import RequestCounter
from support.app import RunningApp


class RecordedEngine(NamedTuple):
    """An engine with one connection, and the recorder of its events."""

    engine: Any
    recorder: EventRecorder

    def take_events(self) -> list[dict[str, Any]]:
        return list(build_documents(self.recorder.take()))

    def count_outcomes(self) -> Counter[tuple[str, str]]:
        return count_outcomes(self.recorder)


def count_outcomes(recorder: EventRecorder) -> Counter[tuple[str, str]]:
    return Counter((event["operation"], event["outcome"]) for event in build_documents(recorder.take()))


@pytest.fixture
async def recorded(settings: Settings) -> AsyncIterator[RecordedEngine]:
    await prepare(settings)
    recorder = EventRecorder(worker="w", max_events=10_000)
    stores: Any = build_stores(settings.model_copy(update={"pool_size": 1}), io=recorder)
    await stores.database.connect()
    recorder.take()
    yield RecordedEngine(stores.database._host_engine, recorder)
    await stores.close()


def delete_tokens(count: int, *, fails: bool = False) -> Transaction[int]:
    rows = yield statement("/* test.count */ SELECT count(*) FROM tokens")
    yield Many("/* test.delete */ DELETE FROM tokens WHERE id = $1", [(-number,) for number in range(1, count + 1)])
    if fails:
        yield Statement("/* test.broken */ SELECT one FROM missing_table")
    return int(rows[0][0])


def lock_writes(engine: Any) -> int:
    """Hold the write lock of a SQLite database, like a second process that writes."""
    lock = os.open(engine.path.with_name("confide.lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


async def test_statements_and_transactions_are_recorded_with_their_names_and_rows(
    recorded: RecordedEngine, engine: str
) -> None:
    trace = recorded.recorder.begin_request("abc")
    current_request.set(replace(NO_REQUEST, trace=trace))
    await recorded.engine.query("/* test.two */ SELECT 1 UNION ALL SELECT 2")
    assert await recorded.engine.transact(delete_tokens(3)) == 0
    events = recorded.take_events()
    assert {event["request_id"] for event in events} == {"abc"}
    assert {event["parent"] for event in events} == {trace.event_id}
    names = [event["operation"] for event in events]
    begin = "begin" if engine == "postgresql" else "wait writer"
    assert names == ["sql test.two", begin, "sql test.count", "sql test.delete", "commit"]
    amounts = [event["amount"] for event in events if event["operation"] in ("sql test.two", "sql test.count")]
    assert amounts == [2, 1]
    assert {event["outcome"] for event in events} == {"ok"}


async def test_a_failed_statement_is_recorded_with_the_class_of_its_error(
    recorded: RecordedEngine, engine: str
) -> None:
    with pytest.raises(Exception, match="missing_table"):
        await recorded.engine.transact(delete_tokens(1, fails=True))
    outcomes = recorded.count_outcomes()
    error = "UndefinedTableError" if engine == "postgresql" else "SQLError"
    assert outcomes["sql test.broken", error] == 1
    assert ("commit", "ok") not in outcomes
    assert ("rollback", "ok") in outcomes or engine == "sqlite"


async def test_a_transaction_that_misses_its_deadline_records_one_wait_and_no_statement(
    recorded: RecordedEngine, engine: str
) -> None:
    lock = lock_writes(recorded.engine) if engine == "sqlite" else None
    connection = recorded.engine.acquire_connection() if engine == "postgresql" else None
    if connection is not None:
        await connection.__aenter__()
    set_deadline(time.monotonic() + 0.3)
    try:
        with pytest.raises((DatabaseUnavailable, Busy)):
            await recorded.engine.transact(delete_tokens(1))
    finally:
        if connection is not None:
            await connection.__aexit__(None, None, None)
        if lock is not None:
            os.close(lock)
    set_deadline(None)
    await recorded.engine.transact(delete_tokens(1))  # it runs after the canceled one
    events = recorded.take_events()
    operation = "wait connection" if engine == "postgresql" else "wait writer"
    failed = [event for event in events if event["operation"] == operation and event["outcome"] != "ok"]
    assert [event["outcome"] for event in failed] == ["TimeoutError"]
    assert sum(event["operation"] == "sql test.delete" for event in events) == 1
    assert 0.2 < (failed[0]["ended_ns"] - failed[0]["began_ns"]) / 1e9 < 1.5


async def test_a_canceled_wait_for_a_connection_or_the_writer_is_recorded(
    recorded: RecordedEngine, engine: str
) -> None:
    if engine == "postgresql":
        async with recorded.engine.acquire_connection():
            waiting = asyncio.create_task(recorded.engine.query("/* test.one */ SELECT 1"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert recorded.count_outcomes()["wait connection", "CancelledError"] == 1
        return
    lock = lock_writes(recorded.engine)
    waiting = asyncio.create_task(recorded.engine.transact(delete_tokens(1)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.close(lock)
    await recorded.engine.transact(delete_tokens(1))  # it runs after the canceled one
    outcomes = recorded.count_outcomes()
    assert outcomes["wait writer", "CancelledError"] == 1
    assert outcomes["sql test.delete", "ok"] == 1


async def test_only_a_query_that_waits_for_a_connection_records_the_wait(recorded: RecordedEngine, engine: str) -> None:
    await asyncio.gather(*(recorded.engine.query("/* test.one */ SELECT 1") for _ in range(4)))
    outcomes = recorded.count_outcomes()
    assert outcomes["sql test.one", "ok"] == 4
    assert outcomes["wait connection", "ok"] == (3 if engine == "postgresql" else 0)


async def test_each_request_of_a_single_flight_records_its_own_wait() -> None:
    recorder = EventRecorder(worker="w", max_events=100)
    is_loaded = asyncio.Event()

    async def load(name: str) -> str:
        recorder.record(f"sql {name}", 0)
        await is_loaded.wait()
        return name

    single_flight = SingleFlight(load, io=recorder)

    async def handle_request(number: int) -> str:
        current_request.set(replace(NO_REQUEST, trace=Trace(number, str(number))))
        return await single_flight.get("one")

    requests = [asyncio.create_task(handle_request(number)) for number in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    is_loaded.set()
    assert await asyncio.gather(*requests) == ["one"] * 3
    events = sorted((event["operation"], event["request_id"]) for event in build_documents(recorder.take()))
    assert events == [("sql one", "0"), ("wait shared", "1"), ("wait shared", "2")]


async def test_a_password_hash_is_recorded_separately_from_the_wait_for_its_turn() -> None:
    recorder = EventRecorder(worker="w", max_events=100)
    hasher = Argon2Hasher(memory_kib=64, io=recorder)
    password_hash = await hasher.hash("violet kettle")
    await asyncio.gather(*(hasher.verify("violet kettle", password_hash) for _ in range(5)))
    hasher.close()
    assert count_outcomes(recorder) == {("hash password", "ok"): 6, ("wait hash", "ok"): 6}


def test_requests_are_counted_by_route_and_status() -> None:
    counter = RequestCounter()
    for status in (200, 200, 404):
        counter.count("GET /config", status)
    assert counter.requests == {("GET /config", "200"): 2, ("GET /config", "404"): 1}


async def test_a_long_search_on_sqlite_blocks_neither_reads_nor_shutdown(sqlite_app: RunningApp) -> None:
    """On PostgreSQL, no search runs in this process."""
    engine: Any = sqlite_app.process.stores.database._host_engine
    endless = "/* test.endless */ WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    set_deadline(time.monotonic() + 1.0)
    searches = [asyncio.create_task(engine.search(endless)) for _ in range(2)]
    set_deadline(None)
    await asyncio.sleep(0.1)
    for _ in range(100):
        assert list(await engine.query("/* test.one */ SELECT 1")) == [(1,)]
    assert not any(search.done() for search in searches)
    results = await asyncio.gather(*searches, return_exceptions=True)
    assert [type(error) for error in results] == [DatabaseUnavailable, DatabaseUnavailable]
    canceled = asyncio.create_task(engine.search(endless))
    await asyncio.sleep(0.1)
    canceled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await canceled
    assert list(await engine.search("/* test.one */ SELECT 1")) == [(1,)]
    # Closing the engine does not wait for running searches either.
    running = [asyncio.create_task(engine.search(endless)) for _ in range(3)]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await engine.close()
    assert time.monotonic() - began < 1.0
    await asyncio.wait(running)
    await engine.open()
