"""Long computations run in slices, get a share of the time, and callers take turns."""

from __future__ import annotations

import asyncio
import itertools
import time
import weakref
from collections.abc import Callable

import pytest

from confide import fair_scheduler, slices
from confide.context import NO_REQUEST, compute_remaining_seconds, current_request
from confide.errors import Busy
from confide.fair_scheduler import MAX_WAITING, FairScheduler
from confide.slices import SlicedCall, is_in_slice, iterate, pause_if_due


def compute(rounds: int, on_slice: Callable[[], None] = lambda: None) -> Callable[[], int]:
    """Return a function that pauses at each of so many steps, because each takes a whole slice."""

    def work() -> int:
        for _ in range(rounds):
            on_slice()
            until = time.thread_time() + fair_scheduler.SLICE_SECONDS
            while time.thread_time() < until:
                pass
            pause_if_due()
        return rounds

    return work


async def test_other_tasks_run_between_the_slices_of_a_computation() -> None:
    scheduler, order = FairScheduler(), []
    work = asyncio.create_task(scheduler.run(compute(5, lambda: order.append("slice")), caller=1))

    async def other() -> None:
        while not work.done():
            order.append("other")
            await asyncio.sleep(0)

    await other()
    assert await work == 5
    assert order.count("slice") == 5
    slices_at = [index for index, name in enumerate(order) if name == "slice"]
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(slices_at[1:]))


async def test_callers_take_turns_however_many_computations_each_has() -> None:
    scheduler, order = FairScheduler(), []
    many = [scheduler.run(compute(3, lambda: order.append("many")), caller="many") for _ in range(10)]
    one = scheduler.run(compute(3, lambda: order.append("one")), caller="one")
    await asyncio.gather(*many, one)
    assert order.count("one") == 3
    # The caller with one computation waits for one slice of the other before each of its own.
    last_of_one = len(order) - 1 - order[::-1].index("one")
    assert order[:last_of_one].count("many") <= 2 * 3 + 2


async def test_computations_leave_most_of_the_time_to_other_tasks() -> None:
    scheduler = FairScheduler()
    began, used = time.perf_counter(), time.thread_time()
    await asyncio.gather(*(scheduler.run(compute(10), caller=number) for number in range(5)))
    elapsed, cpu = time.perf_counter() - began, time.thread_time() - used
    assert cpu <= elapsed * 0.5 + 0.02
    assert elapsed >= 50 * fair_scheduler.SLICE_SECONDS


async def test_a_short_computation_runs_at_once() -> None:
    scheduler = FairScheduler()
    running = scheduler.run(lambda: 7, caller=1)
    with pytest.raises(StopIteration) as returned:
        running.send(None)
    assert returned.value.value == 7


async def test_a_computation_on_little_json_needs_no_turn_and_costs_no_share() -> None:
    scheduler = FairScheduler()
    scheduler._left = -0.1
    running = scheduler.run(is_in_slice, caller=1, size_bytes=fair_scheduler.MAX_SHORT_BYTES)
    with pytest.raises(StopIteration) as returned:
        running.send(None)
    assert returned.value.value is False
    assert scheduler._left == -0.1
    waiting = asyncio.create_task(scheduler.run(is_in_slice, caller=1, size_bytes=fair_scheduler.MAX_SHORT_BYTES + 1))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await waiting


async def test_an_error_of_a_computation_is_raised_and_the_next_one_runs() -> None:
    scheduler = FairScheduler()

    def fail() -> None:
        compute(2)()
        raise ValueError("deliberate")

    results = await asyncio.gather(
        scheduler.run(fail, caller=1), scheduler.run(compute(2), caller=2), return_exceptions=True
    )
    assert isinstance(results[0], ValueError)
    assert results[1] == 2
    assert not is_in_slice()


async def test_a_canceled_computation_ends_and_the_others_go_on() -> None:
    scheduler, ended = FairScheduler(), []

    def work() -> None:
        try:
            compute(1_000)()
        finally:
            ended.append(True)

    canceled = [asyncio.create_task(scheduler.run(work, caller=number)) for number in range(3)]
    other = asyncio.create_task(scheduler.run(compute(4), caller="other"))
    await asyncio.sleep(0)
    canceled[0].cancel()
    await asyncio.sleep(0)
    for task in canceled[1:]:
        task.cancel()
    results = await asyncio.gather(*canceled, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in results)
    assert await other == 4
    # Computations that had not begun do not begin.
    assert len(ended) <= 1


async def test_a_caller_with_too_many_waiting_computations_gets_an_error_and_others_do_not() -> None:
    scheduler = FairScheduler()
    tasks = [asyncio.create_task(scheduler.run(compute(1), caller=1)) for _ in range(MAX_WAITING + 20)]
    other = asyncio.create_task(scheduler.run(compute(1), caller=2))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(one, Busy) for one in results)
    assert sum(one == 1 for one in results) >= MAX_WAITING
    assert await other == 1


async def test_a_wait_for_a_turn_does_not_count_as_time_of_the_database() -> None:
    token = current_request.set(NO_REQUEST.with_deadline(time.monotonic() + 10))
    try:
        scheduler, began = FairScheduler(), time.monotonic()
        scheduler._left = -0.1  # others have used it: the next turn is a quarter of a second away
        await scheduler.run(lambda: None, caller=1)
        elapsed = time.monotonic() - began
        assert elapsed >= 0.2
        assert compute_remaining_seconds() > 10 - elapsed + 0.2
    finally:
        current_request.reset(token)


def test_a_call_that_is_not_sliced_never_pauses() -> None:
    pause_if_due()
    assert list(iterate(range(5_000))) == list(range(5_000))


def test_a_long_loop_pauses_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def work() -> None:
        seen.extend(iterate(range(3_000)))

    call = SlicedCall(work)
    assert not call.run_slice(0)
    assert call.run_slice(60)
    assert seen == list(range(3_000))
    monkeypatch.setattr(slices, "pause_if_due", lambda: None)  # a deliberate fault
    assert SlicedCall(work).run_slice(0)


def test_a_call_that_ended_keeps_nothing_and_a_canceled_one_does_not_run_the_next() -> None:
    class Configuration:
        pass

    held = Configuration()
    reference = weakref.ref(held)
    call = SlicedCall(lambda held=held: held)  # type: ignore[misc]
    assert call.run_slice(60)
    del call, held
    assert reference() is None
    canceled: SlicedCall[int] = SlicedCall(compute(1_000))
    assert not canceled.run_slice(0)
    canceled.cancel()
    assert SlicedCall(lambda: 7).run_slice(60)
    failing: SlicedCall[object] = SlicedCall(lambda: dict[str, int]()["missing"])
    with pytest.raises(KeyError):
        failing.run_slice(60)
    assert SlicedCall(lambda: 8).run_slice(60)
