"""Single flight: concurrent callers share one query for the same key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from confide.clock import read_boot_clock
from confide.context import RESPONSE_TIMEOUT_SECONDS, set_deadline
from confide.telemetry.io_log import NO_IO_LOG, IoLog, measure

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# A caller joins a query only while it is younger than this. So a result is at most this much older than the call.
MAX_JOIN_SECONDS = 0.25


class SingleFlight(Generic[K, V]):
    """Shares the tasks of queries by key. A caller that is cancelled does not cancel the shared task."""

    def __init__(self, query: Callable[[K], Awaitable[V]], *, io: IoLog = NO_IO_LOG) -> None:
        self._query = query
        self._io = io
        # The youngest task of each key, and when it started.
        self._running: dict[K, tuple[asyncio.Task[V], float]] = {}

    async def get(self, key: K) -> V:
        """Return the result of a query, shared with concurrent callers. Raises the errors of the query."""
        running = self._running.get(key)
        now = read_boot_clock()
        if running is None or now - running[1] > MAX_JOIN_SECONDS:
            task = asyncio.create_task(self._run(key))
            self._running[key] = (task, now)
            task.add_done_callback(lambda task: self._remove(key, task))
            return await asyncio.shield(task)
        # The operations of the query count for the request that started it. This one only records its wait.
        return await measure(self._io, "wait shared", asyncio.shield(running[0]))

    async def _run(self, key: K) -> V:
        set_deadline(time.monotonic() + RESPONSE_TIMEOUT_SECONDS)
        return await self._query(key)

    def _remove(self, key: K, task: asyncio.Task[V]) -> None:
        if not task.cancelled():
            task.exception()  # marks the error as retrieved, because all callers may be gone
        running = self._running.get(key)
        if running is not None and running[0] is task:
            del self._running[key]
