"""Asking the store once for all who ask at nearly one time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic_ns
from typing import Generic, TypeVar

from confide.context import ANSWER_SECONDS, current_request, remaining_seconds, set_deadline
from confide.errors import DatabaseUnavailable
from confide.telemetry.io_log import NO_IO_LOG, IoLog, record_failure

A = TypeVar("A")
R = TypeVar("R")

MAX_BATCH = 128
# Whoever has less time left than this does not wait for a question that is under way.
LEAST_SECONDS = 0.5


class Batcher(Generic[A, R]):
    """What is asked while the store is already answering goes with the next question; each gets its own answer.

    `ask` takes several questions and returns their answers in order; what it raises, all who asked get.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[A]], Awaitable[Sequence[R]]],
        *,
        max_running: int,
        operation: str = "wait together",
        io: IoLog = NO_IO_LOG,
    ) -> None:
        self._ask = ask
        self._operation = operation
        self._io = io
        self._max_running = max_running
        self._asking = 0
        self._waiting: list[tuple[A, asyncio.Future[R], float]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, question: A) -> R:
        """Raises `DatabaseUnavailable` in time, like the store."""
        left = remaining_seconds()
        if left < LEAST_SECONDS:
            (answer,) = await self._ask([question])
            return answer
        if self._asking < self._max_running:
            return await self._first(question)
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future, time.monotonic() + left))
        began = monotonic_ns()
        try:
            async with asyncio.timeout(left):
                answer = await future
        except BaseException as error:
            record_failure(self._io, self._operation, began, error)
            if isinstance(error, TimeoutError):
                raise DatabaseUnavailable from None
            raise
        self._io.record(self._operation, began)
        return answer

    async def _first(self, question: A) -> R:
        self._asking += 1
        try:
            (answer,) = await self._ask([question])
        finally:
            self._asking -= 1
            if self._waiting and self._asking < self._max_running:
                self._asking += 1
                task = asyncio.create_task(self._answer_those_who_wait())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return answer

    async def _answer_those_who_wait(self) -> None:
        # What is asked for several belongs to none of them: each notes how long it waited for it.
        current_request.set(current_request.get().without_trace())
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                # Who has given up does not want it done any more.
                asked = [one for one in taken if not one[1].done()]
                if asked:
                    await self._answer(asked)
        finally:
            self._asking -= 1

    async def _answer(self, asked: list[tuple[A, asyncio.Future[R], float]]) -> None:
        # Due when the last of them must have its answer: the others hear in their own time that there is none.
        set_deadline(min(time.monotonic() + ANSWER_SECONDS, max(until for _, _, until in asked)))
        try:
            answers = await self._ask([question for question, _, _ in asked])
            for (_, future, _), answer in zip(asked, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who asked
            for _, future, _ in asked:
                if not future.done():
                    future.set_exception(error)
