"""A lock for each key: within a process, operations on the same key run one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from confide.errors import Busy

K = TypeVar("K", bound=Hashable)
Q = TypeVar("Q", bound="LockQueue")


class LockQueue:
    """The lock of one key, with the number of callers that hold or await it. A subclass can keep more about the key."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


class KeyedLock(Generic[K, Q]):
    """Locks by key. A queue exists only while callers hold or await its lock."""

    def __init__(self, queue_type: type[Q], *, max_queued: int) -> None:
        self._queue_type = queue_type
        self._max_queued = max_queued
        self._queues: dict[K, Q] = {}

    @asynccontextmanager
    async def acquire(self, key: K) -> AsyncIterator[Q]:
        """Hold the lock of a key. Raises `Busy` if `max_queued` callers already hold or await it."""
        queue = self._queues.setdefault(key, self._queue_type())
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
