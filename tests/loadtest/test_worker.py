"""Test a worker against stub servers: honest latency, kinds of errors, and limits of the generator itself."""

from __future__ import annotations

import asyncio
import time

import pytest

from confide.loadtest.plan import Plan, Stage
from confide.loadtest.results import Result, build_result
from confide.loadtest.worker import LoadWorker
from support.stub_server import ANSWER, run_closed_loop, run_stub_server


async def run_load(port: int, *, rate: float, seconds: float, **fields: object) -> Result:
    """Run one worker in this process."""
    defaults = {"url": f"http://127.0.0.1:{port}", "stages": (Stage(seconds, rate),), "warm_up_seconds": 0.0}
    plan = Plan(mix=(("get", 1.0),), **(defaults | fields))  # type: ignore[arg-type]
    worker = LoadWorker(plan, ["token"], worker=0, begin=time.monotonic() + 0.05)
    measurement = await worker.run(lambda _: None)
    return build_result(plan, [measurement], began_at=time.time())


async def answer_at_once() -> bytes:
    return ANSWER


async def test_every_scheduled_request_is_counted_once() -> None:
    async with run_stub_server(answer_at_once) as port:
        result = await run_load(port, rate=500, seconds=2)
    assert (result.intended, result.answered, result.errors) == (1_000, 1_000, {})
    assert [second["intended"] for second in result.seconds] == [500, 500]


async def test_the_open_model_measures_a_stall_that_a_closed_loop_misses() -> None:
    """A server that stalls for 1 of 10 seconds delays 5 % of all requests by half a second or more."""
    began = time.monotonic()

    async def stall() -> bytes:
        offset = (time.monotonic() - began) % 10
        if 4 < offset < 5:
            await asyncio.sleep(5 - offset)
        return ANSWER

    async with run_stub_server(stall) as port:
        result, closed_loop = await asyncio.gather(
            run_load(port, rate=200, seconds=10), run_closed_loop(port, seconds=10, pause=0.005)
        )
    closed_loop.sort()
    assert result.intended == result.answered == 2_000
    # Open model: each request scheduled within the stall waits for its end.
    p95_ms = result.compute_percentile_ms(95)
    assert p95_ms is not None
    assert p95_ms > 400
    assert result.merge_seconds().get_max_value() > 900_000
    # Closed loop: only one request meets the stall, so p99 looks fast.
    assert sum(seconds > 0.4 for seconds in closed_loop) == 1
    assert closed_loop[int(len(closed_loop) * 0.99)] < 0.1


async def test_errors_are_counted_by_kind() -> None:
    answers: list[bytes | str | None] = [ANSWER, b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", None, "never"]
    number = 0

    async def answer_in_turn() -> bytes | None:
        nonlocal number
        number += 1
        answer = answers[number % 4]
        if isinstance(answer, str):
            await asyncio.sleep(5)
            return None
        return answer

    async with run_stub_server(answer_in_turn) as port:
        result = await run_load(port, rate=40, seconds=1, timeout_seconds=0.5)
    assert result.intended == 40
    assert result.answered + sum(result.errors.values()) == 40
    assert set(result.errors) == {"503", "connection lost", "timeout"}
    assert 8 <= result.errors["503"] <= 12


async def test_a_stopped_worker_starts_no_more_requests_and_fails_those_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fired: list[float] = []
    start_due_requests = LoadWorker._start_due_requests

    def count_and_start(worker: LoadWorker) -> None:
        fired.append(time.monotonic())
        start_due_requests(worker)

    async def never_answer() -> bytes:
        await asyncio.sleep(60)
        return ANSWER

    stopped: list[float] = []

    def is_stop_requested() -> bool:
        if time.monotonic() > begin + 1.1:
            stopped.append(time.monotonic())
        return bool(stopped)

    monkeypatch.setattr(LoadWorker, "_start_due_requests", count_and_start)
    async with run_stub_server(never_answer) as port:
        plan = Plan(
            f"http://127.0.0.1:{port}", (Stage(60, 100),), (("get", 1.0),), warm_up_seconds=0.0, timeout_seconds=1.0
        )
        begin = time.monotonic() + 0.05
        worker = LoadWorker(plan, ["token"], worker=0, begin=begin)
        measurement = await worker.run(lambda _: None, is_stop_requested=is_stop_requested)
    assert time.monotonic() - stopped[0] < 20, "it waited for answers that take a minute"
    assert 1 < measurement["ran_seconds"] < 2
    result = build_result(plan.truncate(1), [measurement], began_at=time.time(), is_stopped=True)
    assert (result.intended, result.errors.total(), result.document["is_stopped"]) == (100, 100, True)
    assert sum(at > stopped[0] for at in fired) <= 1, "only the timer that was already set may fire"


async def test_a_missing_server_is_an_error_and_not_a_hang() -> None:
    result = await run_load(1, rate=50, seconds=1)
    assert result.answered == 0
    assert result.errors == {"ConnectionRefusedError": 50}
    assert result.compute_percentile_ms(99) is None
    assert result.summarize()["p99_ms"] is None


async def test_a_timeout_frees_a_connection_for_queued_requests() -> None:
    number = 0

    async def hang_four_times() -> bytes:
        nonlocal number
        number += 1
        if number <= 4:
            await asyncio.sleep(5)
        return ANSWER

    async with run_stub_server(hang_four_times) as port:
        result = await run_load(port, rate=40, seconds=1, connections=4, timeout_seconds=0.4)
    assert set(result.errors) == {"timeout"}
    assert result.answered + result.errors["timeout"] == 40
    assert result.answered >= 20


async def test_a_server_that_ends_during_a_run_fails_queued_requests_at_once() -> None:
    """A queued request fails with the connection error, not with a timeout."""
    async with run_stub_server(answer_at_once) as port:
        load = asyncio.create_task(run_load(port, rate=100, seconds=2, connections=4, timeout_seconds=5.0))
        await asyncio.sleep(0.8)
    result = await load
    assert result.intended == result.answered + sum(result.errors.values()) == 200
    assert "timeout" not in result.errors
    assert "unanswered at the end" not in result.errors


async def test_a_connection_that_the_server_closes_is_replaced() -> None:
    async def answer_and_close() -> bytes:
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"

    async with run_stub_server(answer_and_close) as port:
        result = await run_load(port, rate=100, seconds=1)
    assert (result.answered, result.errors) == (100, {})


async def test_a_response_that_is_not_http_is_an_error() -> None:
    async def answer_with_ssh() -> bytes:
        return b"SSH-2.0-nothing\r\n\r\n"

    async with run_stub_server(answer_with_ssh) as port:
        result = await run_load(port, rate=50, seconds=1)
    assert result.errors == {"no HTTP": 50}


async def test_too_few_connections_are_reported_and_queued_requests_end_within_the_timeout() -> None:
    async def answer_slowly() -> bytes:
        await asyncio.sleep(0.1)
        return ANSWER

    async with run_stub_server(answer_slowly) as port:
        result = await run_load(port, rate=100, seconds=1, connections=2, timeout_seconds=1.0)
    assert result.intended == 100
    assert result.answered + sum(result.errors.values()) == 100
    assert set(result.errors) == {"timeout"}
    assert result.errors["timeout"] > 40
    assert any("found no free connection" in limit for limit in result.find_generator_limits())


async def test_a_generator_that_starts_requests_late_reports_it() -> None:
    """A deliberate fault: other code blocks the worker's event loop."""
    async with run_stub_server(answer_at_once) as port:
        load = asyncio.create_task(run_load(port, rate=200, seconds=1))
        await asyncio.sleep(0.3)
        time.sleep(0.3)  # noqa: ASYNC251 - the deliberate fault
        result = await load
    assert any("ms late" in limit for limit in result.find_generator_limits())
    assert (result.intended, result.answered) == (200, 200)
    assert result.merge_seconds().get_max_value() > 200_000


async def test_the_warm_up_is_not_measured() -> None:
    async with run_stub_server(answer_at_once) as port:
        result = await run_load(port, rate=100, seconds=1, warm_up_seconds=0.25)
    assert (result.intended, result.answered, len(result.seconds)) == (100, 100, 1)
