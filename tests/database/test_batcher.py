"""Batching: each request gets its own result in time, and errors reach only the requests of their batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from confide.context import RESPONSE_TIMEOUT_SECONDS, current_request, set_deadline
from confide.database.batcher import MAX_BATCH, MIN_WAIT_SECONDS, Batcher
from confide.errors import DatabaseUnavailable


class Doubler:
    """Doubles each number after a delay, and records the batches and their deadlines."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.deadlines: list[float | None] = []
        self.seconds = 0.01
        self.fails = False

    async def run(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.deadlines.append(current_request.get().deadline)
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise DatabaseUnavailable
        return [2 * number for number in numbers]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


async def test_requests_during_a_batch_form_the_next_batch(doubler: Doubler) -> None:
    batcher = Batcher(doubler.run, max_running=2, operation="wait")
    results = await asyncio.gather(*(batcher.submit(number) for number in range(20)))
    assert results == [2 * number for number in range(20)]
    assert doubler.batches == [[0], [1], list(range(2, 20))]
    assert await batcher.submit(7) == 14


async def test_a_batch_has_a_maximum_size(doubler: Doubler) -> None:
    batcher = Batcher(doubler.run, max_running=1, operation="wait")
    await asyncio.gather(*(batcher.submit(number) for number in range(300)))
    assert [len(batch) for batch in doubler.batches] == [1, MAX_BATCH, MAX_BATCH, 300 - 1 - 2 * MAX_BATCH]


async def test_an_error_reaches_all_requests_of_the_batch_and_no_later_one(doubler: Doubler) -> None:
    doubler.fails = True
    batcher = Batcher(doubler.run, max_running=1, operation="wait")
    errors = await asyncio.gather(*(batcher.submit(number) for number in range(5)), return_exceptions=True)
    assert [type(error) for error in errors] == [DatabaseUnavailable] * 5
    doubler.fails = False
    assert await batcher.submit(1) == 2


async def test_a_cancelled_request_is_left_out_of_the_batch(doubler: Doubler) -> None:
    batcher = Batcher(doubler.run, max_running=1, operation="wait")
    tasks = [asyncio.create_task(batcher.submit(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1::2] == [2, 6]
    assert doubler.batches == [[0], [1, 3]]


async def test_no_request_waits_beyond_its_deadline(doubler: Doubler) -> None:
    doubler.seconds = 60.0
    batcher = Batcher(doubler.run, max_running=1, operation="wait")
    first = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0)
    set_deadline(time.monotonic() + MIN_WAIT_SECONDS + 0.05)
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await batcher.submit(2)
    assert time.monotonic() - began < RESPONSE_TIMEOUT_SECONDS
    # A request with little time left runs alone.
    set_deadline(time.monotonic() + MIN_WAIT_SECONDS / 2)
    doubler.seconds = 0.0
    assert await batcher.submit(3) == 6
    first.cancel()


async def submit(batcher: Batcher[int, int], number: int, seconds: float) -> int:
    set_deadline(time.monotonic() + seconds)
    return await batcher.submit(number)


async def test_an_early_deadline_in_a_batch_cancels_no_other_request(doubler: Doubler) -> None:
    batcher = Batcher(doubler.run, max_running=1, operation="wait")
    doubler.seconds = MIN_WAIT_SECONDS + 0.05
    seconds = [9.0, MIN_WAIT_SECONDS + 0.1, 9.0, 8.0]
    results = await asyncio.gather(
        *(submit(batcher, number, left) for number, left in enumerate(seconds)), return_exceptions=True
    )
    assert results[:1] + results[2:] == [0, 4, 6]
    assert isinstance(results[1], DatabaseUnavailable)


async def test_requests_with_little_time_left_do_not_occupy_the_batcher(doubler: Doubler) -> None:
    batcher = Batcher(doubler.run, max_running=1, operation="wait")
    doubler.seconds = 0.2
    urgent = []
    for number in range(3):
        urgent.append(asyncio.create_task(submit(batcher, number, MIN_WAIT_SECONDS - 0.1)))
        await asyncio.sleep(0.05)
    began = time.monotonic()
    assert await batcher.submit(7) == 14
    assert await batcher.submit(8) == 16
    assert time.monotonic() - began < 1.0
    assert await asyncio.gather(*urgent) == [0, 2, 4]


async def test_the_batcher_recovers_from_a_missing_result(doubler: Doubler, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = Batcher(doubler.run, max_running=1, operation="wait")
    first = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0)
    others = [asyncio.create_task(batcher.submit(number)) for number in (2, 3)]

    async def run_without_last(numbers: Sequence[int]) -> list[int]:
        return (await doubler.run(numbers))[:1]

    monkeypatch.setattr(batcher, "_run", run_without_last)
    await asyncio.gather(first, *others, return_exceptions=True)
    monkeypatch.setattr(batcher, "_run", doubler.run)
    assert await batcher.submit(4) == 8
