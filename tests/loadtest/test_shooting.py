"""The load tester tells of who had to wait, of errors by their kinds, and of itself where it was the limit."""

from __future__ import annotations

import asyncio
import time

import pytest

from confide.loadtest.plans import Plan, Stage
from confide.loadtest.results import Result, result_of
from confide.loadtest.shooting import Shooter
from support.stub_server import ANSWER, run_closed_loop, run_stub_server


async def shot(port: int, *, rate: float, seconds: float, **more: object) -> Result:
    """Run a plan in this process."""
    given = {"url": f"http://127.0.0.1:{port}", "stages": (Stage(seconds, rate),), "warm_up_seconds": 0.0, **more}
    plan = Plan(mix=(("get", 1.0),), **given)  # type: ignore[arg-type]
    shooter = Shooter(plan, ["token"], share=0, begin=time.monotonic() + 0.05)
    done = await shooter.run(lambda _: None)
    return result_of(plan, [done], began_at=time.time())


async def at_once() -> bytes:
    return ANSWER


async def test_every_request_that_was_due_is_counted_once() -> None:
    async with run_stub_server(at_once) as port:
        result = await shot(port, rate=500, seconds=2)
    assert (result.intended, result.answered, result.errors) == (1_000, 1_000, {})
    assert [second["intended"] for second in result.seconds] == [500, 500]


async def test_a_stall_is_told_of_by_the_open_model_and_not_by_a_closed_loop() -> None:
    """A server that stalls for 1 s every 10 s: 5 % of all requests had to wait for half a second and more."""
    began = time.monotonic()

    async def stalling() -> bytes:
        within = (time.monotonic() - began) % 10
        if 4 < within < 5:
            await asyncio.sleep(5 - within)
        return ANSWER

    async with run_stub_server(stalling) as port:
        result, loop = await asyncio.gather(
            shot(port, rate=200, seconds=10), run_closed_loop(port, seconds=10, pause=0.005)
        )
    loop.sort()
    assert result.intended == result.answered == 2_000
    # The open model: each request of the stalled second waited for its end.
    waited = result.percentile(95)
    assert waited is not None
    assert waited > 400
    assert result.histogram().get_max_value() > 900_000
    # The closed loop asked one thing in that second, and calls 99 % of its answers quick.
    assert sum(took > 0.4 for took in loop) == 1
    assert loop[int(len(loop) * 0.99)] < 0.1


async def test_refusals_lost_connections_and_timeouts_are_errors_by_their_kinds() -> None:
    answers: list[bytes | str | None] = [ANSWER, b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", None, "never"]
    number = 0

    async def mixed() -> bytes | None:
        nonlocal number
        number += 1
        answer = answers[number % 4]
        if isinstance(answer, str):
            await asyncio.sleep(5)
            return None
        return answer

    async with run_stub_server(mixed) as port:
        result = await shot(port, rate=40, seconds=1, timeout_seconds=0.5)
    assert result.intended == 40
    assert result.answered + sum(result.errors.values()) == 40
    assert set(result.errors) == {"503", "connection lost", "timeout"}
    assert 8 <= result.errors["503"] <= 12


async def test_who_is_stopped_begins_nothing_more_and_lets_go_of_what_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fired: list[float] = []
    fire = Shooter._fire

    def counted(shooter: Shooter) -> None:
        fired.append(time.monotonic())
        fire(shooter)

    async def never() -> bytes:
        await asyncio.sleep(60)
        return ANSWER

    stopped: list[float] = []

    def is_to_stop() -> bool:
        if time.monotonic() > begin + 1.1:
            stopped.append(time.monotonic())
        return bool(stopped)

    monkeypatch.setattr(Shooter, "_fire", counted)
    async with run_stub_server(never) as port:
        plan = Plan(
            f"http://127.0.0.1:{port}", (Stage(60, 100),), (("get", 1.0),), warm_up_seconds=0.0, timeout_seconds=1.0
        )
        begin = time.monotonic() + 0.05
        done = await Shooter(plan, ["token"], share=0, begin=begin).run(lambda _: None, is_to_stop=is_to_stop)
    assert time.monotonic() - stopped[0] < 2
    assert 1 < done["ran_seconds"] < 2
    result = result_of(plan.cut(1), [done], began_at=time.time(), is_stopped=True)
    assert (result.intended, result.errors.total(), result.document["is_stopped"]) == (100, 100, True)
    assert sum(at > stopped[0] for at in fired) <= 1, "the timer that was set, and no other"


async def test_a_server_that_is_not_there_is_an_error_and_not_a_hang() -> None:
    result = await shot(1, rate=50, seconds=1)
    assert result.answered == 0
    assert result.errors == {"ConnectionRefusedError": 50}
    assert result.percentile(99) is None
    assert result.line()["p99_ms"] is None


async def test_a_request_that_is_given_up_takes_no_other_with_it() -> None:
    """Only the first four answers never come: whoever waits for a connection gets another one."""
    number = 0

    async def hanging_at_first() -> bytes:
        nonlocal number
        number += 1
        if number <= 4:
            await asyncio.sleep(5)
        return ANSWER

    async with run_stub_server(hanging_at_first) as port:
        result = await shot(port, rate=40, seconds=1, connections=4, timeout_seconds=0.4)
    assert set(result.errors) == {"timeout"}
    assert result.answered + result.errors["timeout"] == 40
    assert result.answered >= 20


async def test_a_server_that_goes_away_in_between_strands_nobody() -> None:
    """Whoever waits for a connection when none can be made any more hears of that, and not of a timeout."""
    async with run_stub_server(at_once) as port:
        running = asyncio.create_task(shot(port, rate=100, seconds=2, connections=4, timeout_seconds=5.0))
        await asyncio.sleep(0.8)
    result = await running
    assert result.intended == result.answered + sum(result.errors.values()) == 200
    assert "timeout" not in result.errors
    assert "unanswered at the end" not in result.errors


async def test_a_server_that_closes_after_each_answer_is_connected_to_again() -> None:
    async def closing() -> bytes:
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"

    async with run_stub_server(closing) as port:
        result = await shot(port, rate=100, seconds=1)
    assert (result.answered, result.errors) == (100, {})


async def test_what_is_no_http_is_an_error() -> None:
    async def rubbish() -> bytes:
        return b"SSH-2.0-nothing\r\n\r\n"

    async with run_stub_server(rubbish) as port:
        result = await shot(port, rate=50, seconds=1)
    assert result.errors == {"no HTTP": 50}


async def test_too_few_connections_are_told_of_and_those_who_wait_are_answered_in_time_or_given_up() -> None:
    async def slow() -> bytes:
        await asyncio.sleep(0.1)
        return ANSWER

    async with run_stub_server(slow) as port:
        result = await shot(port, rate=100, seconds=1, connections=2, timeout_seconds=1.0)
    assert result.intended == 100
    assert result.answered + sum(result.errors.values()) == 100
    assert set(result.errors) == {"timeout"}
    assert result.errors["timeout"] > 40
    assert any("found no free connection" in limit for limit in result.limits())


async def test_a_generator_that_cannot_keep_up_says_so() -> None:
    """The planted fault: something else takes the processor of the generator's own loop."""
    async with run_stub_server(at_once) as port:
        running = asyncio.create_task(shot(port, rate=200, seconds=1))
        await asyncio.sleep(0.3)
        time.sleep(0.3)  # noqa: ASYNC251 - it is what shall be noticed
        result = await running
    assert any("ms late" in limit for limit in result.limits())
    assert (result.intended, result.answered) == (200, 200)
    assert result.histogram().get_max_value() > 200_000


async def test_what_was_warming_up_is_not_counted() -> None:
    async with run_stub_server(at_once) as port:
        result = await shot(port, rate=100, seconds=1, warm_up_seconds=0.25)
    assert (result.intended, result.answered, len(result.seconds)) == (100, 100, 1)
