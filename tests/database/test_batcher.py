"""Asking once for many: each gets its own answer, in time, and nobody pays for another's trouble twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from confide.context import ANSWER_SECONDS, current_request, set_deadline
from confide.database.batcher import LEAST_SECONDS, MAX_BATCH, Batcher
from confide.errors import DatabaseUnavailable


class Desk:
    """Answers each question with its double, a while later, and remembers what was asked together."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.due: list[float | None] = []
        self.seconds = 0.01
        self.fails = False

    async def answer(self, questions: Sequence[int]) -> list[int]:
        self.asked.append(list(questions))
        self.due.append(current_request.get().deadline)
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise DatabaseUnavailable
        return [2 * question for question in questions]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_what_comes_while_the_store_answers_goes_with_the_next_question(desk: Desk) -> None:
    together = Batcher(desk.answer, max_running=2)
    answers = await asyncio.gather(*(together.submit(number) for number in range(20)))
    assert answers == [2 * number for number in range(20)]
    assert desk.asked == [[0], [1], list(range(2, 20))]
    assert await together.submit(7) == 14


async def test_no_question_grows_without_bound(desk: Desk) -> None:
    together = Batcher(desk.answer, max_running=1)
    await asyncio.gather(*(together.submit(number) for number in range(300)))
    assert [len(asked) for asked in desk.asked] == [1, MAX_BATCH, MAX_BATCH, 300 - 1 - 2 * MAX_BATCH]


async def test_what_goes_wrong_reaches_all_who_asked_and_nobody_later(desk: Desk) -> None:
    desk.fails = True
    together = Batcher(desk.answer, max_running=1)
    found = await asyncio.gather(*(together.submit(number) for number in range(5)), return_exceptions=True)
    assert [type(error) for error in found] == [DatabaseUnavailable] * 5
    desk.fails = False
    assert await together.submit(1) == 2


async def test_who_has_given_up_is_not_asked_for(desk: Desk) -> None:
    together = Batcher(desk.answer, max_running=1)
    tasks = [asyncio.create_task(together.submit(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[1::2] == [2, 6]
    assert desk.asked == [[0], [1, 3]]


async def test_nobody_waits_longer_than_there_is_time(desk: Desk) -> None:
    desk.seconds = 60.0
    together = Batcher(desk.answer, max_running=1)
    first = asyncio.create_task(together.submit(1))
    await asyncio.sleep(0)
    set_deadline(time.monotonic() + LEAST_SECONDS + 0.05)
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await together.submit(2)
    assert time.monotonic() - began < ANSWER_SECONDS
    # Who is in a hurry goes alone and does not hurry the others.
    set_deadline(time.monotonic() + LEAST_SECONDS / 2)
    desk.seconds = 0.0
    assert await together.submit(3) == 6
    first.cancel()


async def ask(together: Batcher[int, int], number: int, seconds: float) -> int:
    set_deadline(time.monotonic() + seconds)
    return await together.submit(number)


async def test_who_has_little_time_left_costs_nobody_else_the_answer(desk: Desk) -> None:
    together = Batcher(desk.answer, max_running=1)
    desk.seconds = LEAST_SECONDS + 0.05
    seconds = [9.0, LEAST_SECONDS + 0.1, 9.0, 8.0]
    found = await asyncio.gather(
        *(ask(together, number, left) for number, left in enumerate(seconds)), return_exceptions=True
    )
    assert found[:1] + found[2:] == [0, 4, 6]
    assert isinstance(found[1], DatabaseUnavailable)


async def test_those_in_a_hurry_keep_nobody_from_asking(desk: Desk) -> None:
    together = Batcher(desk.answer, max_running=1)
    desk.seconds = 0.2
    hurried = []
    for number in range(3):
        hurried.append(asyncio.create_task(ask(together, number, LEAST_SECONDS - 0.1)))
        await asyncio.sleep(0.05)
    began = time.monotonic()
    assert await together.submit(7) == 14
    assert await together.submit(8) == 16
    assert time.monotonic() - began < 1.0
    assert await asyncio.gather(*hurried) == [0, 2, 4]


async def test_an_answer_too_few_ends_nothing_for_good(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    together = Batcher(desk.answer, max_running=1)
    first = asyncio.create_task(together.submit(1))
    await asyncio.sleep(0)
    others = [asyncio.create_task(together.submit(number)) for number in (2, 3)]
    answer = desk.answer

    async def too_few(questions: Sequence[int]) -> list[int]:
        return (await answer(questions))[:1]

    monkeypatch.setattr(together, "_ask", too_few)
    await asyncio.gather(first, *others, return_exceptions=True)
    monkeypatch.setattr(together, "_ask", answer)
    assert await together.submit(4) == 8
