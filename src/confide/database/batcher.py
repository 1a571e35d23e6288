"""Batching: while a batch of requests runs, later requests wait and form the next batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic_ns
from typing import Generic, TypeAlias, TypeVar

from confide.context import RESPONSE_TIMEOUT_SECONDS, compute_remaining_seconds, current_request, set_deadline
from confide.errors import DatabaseUnavailable
from confide.telemetry.io_log import NO_IO_LOG, IoLog, record_failure

A = TypeVar("A")
R = TypeVar("R")

MAX_BATCH = 128
# A request with less time left runs at once instead of waiting for the next batch.
MIN_WAIT_SECONDS = 0.5


# A request, the future of its result, and its deadline (`time.monotonic`). A tuple, because each save creates one.
_Waiting: TypeAlias = tuple[A, asyncio.Future[R], float]


class Batcher(Generic[A, R]):
    """Runs requests in batches, at most `max_running` batches at a time.

    `run` takes the requests of a batch and returns their results in order. If it raises, all of them get the error.
    """

    def __init__(
        self,
        run: Callable[[Sequence[A]], Awaitable[Sequence[R]]],
        *,
        max_running: int,
        operation: str,
        io: IoLog = NO_IO_LOG,
    ) -> None:
        self._run = run
        self._operation = operation
        self._io = io
        self._max_running = max_running
        self._running = 0
        self._waiting: list[_Waiting[A, R]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, request: A) -> R:
        """Run a request, alone or in a batch, and return its result. Raises `DatabaseUnavailable` at its deadline."""
        left = compute_remaining_seconds()
        if left < MIN_WAIT_SECONDS:
            (result,) = await self._run([request])
            return result
        if self._running < self._max_running:
            return await self._run_first(request)
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future, time.monotonic() + left))
        began_ns = monotonic_ns()
        try:
            async with asyncio.timeout(left):
                result = await future
        except BaseException as error:
            record_failure(self._io, self._operation, began_ns, error)
            if isinstance(error, TimeoutError):
                raise DatabaseUnavailable from None
            raise
        self._io.record(self._operation, began_ns)
        return result

    async def _run_first(self, request: A) -> R:
        self._running += 1
        try:
            (result,) = await self._run([request])
        finally:
            self._running -= 1
            if self._waiting and self._running < self._max_running:
                self._running += 1
                task = asyncio.create_task(self._run_waiting())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return result

    async def _run_waiting(self) -> None:
        # A batch belongs to several requests, so none of their traces gets its operations. Each records its wait.
        current_request.set(current_request.get().without_trace())
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                # Skip requests whose caller has given up.
                batch = [waiting for waiting in taken if not waiting[1].done()]
                if batch:
                    await self._run_batch(batch)
        finally:
            self._running -= 1

    async def _run_batch(self, batch: list[_Waiting[A, R]]) -> None:
        # The latest deadline of the batch. A caller with an earlier deadline stops waiting by itself.
        latest = max(deadline for _, _, deadline in batch)
        set_deadline(min(time.monotonic() + RESPONSE_TIMEOUT_SECONDS, latest))
        try:
            results = await self._run([request for request, _, _ in batch])
            for (_, future, _), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:  # noqa: BLE001 - delivered to the callers
            for _, future, _ in batch:
                if not future.done():
                    future.set_exception(error)
