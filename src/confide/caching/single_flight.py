"""Asking the store once for many callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from confide.clock import boottime
from confide.context import ANSWER_SECONDS, set_deadline
from confide.telemetry.io_log import NO_IO_LOG, IoLog, measure

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Whoever comes later than this asks anew: an answer may be no older than that when it is asked for.
JOIN_SECONDS = 0.25


class SingleFlight(Generic[K, V]):
    """Callers who want one thing at nearly one time share the task that asks for it, which belongs to none of them."""

    def __init__(self, ask: Callable[[K], Awaitable[V]], *, io: IoLog = NO_IO_LOG) -> None:
        self._ask = ask
        self._io = io
        self._asking: dict[K, tuple[asyncio.Task[V], float]] = {}

    async def get(self, name: K) -> V:
        known = self._asking.get(name)
        now = boottime()
        if known is None or now - known[1] > JOIN_SECONDS:
            task = asyncio.create_task(self._asked(name))
            self._asking[name] = known = (task, now)
            task.add_done_callback(lambda done: self._forget(name, done))
            return await asyncio.shield(task)
        # What is asked is noted for whoever began to ask; whoever joins notes the wait.
        return await measure(self._io, "wait shared", asyncio.shield(known[0]))

    async def _asked(self, name: K) -> V:
        set_deadline(time.monotonic() + ANSWER_SECONDS)
        return await self._ask(name)

    def _forget(self, name: K, done: asyncio.Task[V]) -> None:
        if not done.cancelled():
            done.exception()  # nobody may be left to hear of it
        known = self._asking.get(name)
        if known is not None and known[0] is done:
            del self._asking[name]
