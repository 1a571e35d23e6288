"""A lock for each key: within a process, operations on the same key run one after the other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from confide.errors import Busy

K = TypeVar("K", bound=Hashable)

MAX_BACKOFF_SECONDS = 0.1


class LockQueue:
    """The lock of one key, with its waiting callers and the last result."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
        self._has_competitor = False
        self._last_version: int | None = None
        self._last_seconds = 0.0

    async def back_off(self) -> None:
        """Pause if another process saves the same key, so that it gets a turn.

        Without a pause, the process that won a race would start again before the others have seen that they lost, and
        would win again.
        """
        if self._has_competitor:
            pause = random.uniform(0, 2 * self._last_seconds)  # noqa: S311 - fairness, not secrecy
            await asyncio.sleep(min(pause, MAX_BACKOFF_SECONDS))

    def record_turn(self, version: int, *, seconds: float, races_lost: int) -> None:
        """Record the result of a turn. A gap in the versions or a lost race means that another process competes."""
        if races_lost or self._last_version not in (None, version, version - 1):
            self._has_competitor = True
        self._last_version, self._last_seconds = version, seconds


class KeyedLock(Generic[K]):
    """Locks by key. A queue exists only while callers hold or await its lock."""

    def __init__(self, *, max_queued: int) -> None:
        self._max_queued = max_queued
        self._queues: dict[K, LockQueue] = {}

    @asynccontextmanager
    async def acquire(self, key: K) -> AsyncIterator[LockQueue]:
        """Hold the lock of a key. Raises `Busy` if `max_queued` callers already hold or await it."""
        queue = self._queues.setdefault(key, LockQueue())
        if queue.waiting >= self._max_queued:
            raise Busy(retry_after_seconds=1)
        queue.waiting += 1
        try:
            async with queue.lock:
                yield queue
        finally:
            queue.waiting -= 1
            if not queue.waiting:
                del self._queues[key]
