"""Share the event loop between long computations and everything else, and between the callers of the computations."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import TypeVar

from confide.context import extend_deadline
from confide.errors import Busy
from confide.slices import SlicedCall

T = TypeVar("T")

# The longest time that a computation holds the event loop, if it calls `pause_if_due` often enough.
SLICE_SECONDS = 0.002
# The share of time that all computations get together while they wait for each other or for their own next slice.
SHARE = 0.3
# Computations start at once until they have used this much of their share in advance.
MAX_ADVANCE_SECONDS = 0.004
# A computation on so many bytes of JSON takes a fraction of a millisecond. It needs no turn and costs no share.
MAX_SHORT_BYTES = 4 * 1024
# The number of computations of one caller that can wait before another one begins.
MAX_WAITING = 200
# A wait of this time or more does not count as time of the database.
_NOTICEABLE_SECONDS = 0.01


class FairScheduler:
    """Runs computations in slices. While some wait, each caller gets a slice in turn (round robin).

    Callers together get at most `SHARE` of the time, so that requests without long computations are answered between
    the slices.
    """

    def __init__(self) -> None:
        # What is left of the share, in seconds. It is negative after a slice that took longer.
        self._left = MAX_ADVANCE_SECONDS
        self._counted_at = time.perf_counter()
        # The waiting computations of each caller. The first caller is the next one.
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        # A turn is planned or given.
        self._has_turn = False

    async def run(self, function: Callable[[], T], *, caller: Hashable, size_bytes: int | None = None) -> T:
        """Run a function that calls `pause_if_due` in its loops, and return its result.

        `size_bytes` is the size of its JSON, if its time depends on nothing else, such as a schema.
        Raises `Busy` if too many computations of the caller wait.
        """
        if size_bytes is not None and size_bytes <= MAX_SHORT_BYTES:
            return function()
        call = SlicedCall(function)
        waited_seconds = 0.0
        must_wait = bool(self._waiting) or self._has_turn or (self._left <= 0 and self._count_left() <= 0)
        if must_wait and len(self._waiting.get(caller, ())) >= MAX_WAITING:
            raise Busy(retry_after_seconds=1)
        try:
            while must_wait or not self._run_slice(call):
                waited_seconds += await self._wait_for_turn(caller)
                must_wait = False
        finally:
            call.cancel()
        if waited_seconds >= _NOTICEABLE_SECONDS:
            extend_deadline(waited_seconds)
        return call.result

    def _run_slice(self, call: SlicedCall[T]) -> bool:
        # Processor time: on a busy machine, other processes also take time from a slice. Reading it costs much more
        # than reading the clock, so the first slice, often the only one, costs at most what can be used in advance.
        is_first = not call.has_begun
        measure = time.perf_counter if is_first else time.thread_time
        began = measure()
        try:
            return call.run_slice(SLICE_SECONDS)
        finally:
            used = measure() - began
            self._left -= min(used, MAX_ADVANCE_SECONDS) if is_first else used
            self._has_turn = False
            if self._waiting:
                self._plan_turn()

    def _count_left(self) -> float:
        """Return what is left of the share, after what the time since the last call adds."""
        now = time.perf_counter()
        self._left = min(self._left + SHARE * (now - self._counted_at), MAX_ADVANCE_SECONDS)
        self._counted_at = now
        return self._left

    async def _wait_for_turn(self, caller: Hashable) -> float:
        """Wait for a turn. Return the time that it took, in seconds."""
        began = time.perf_counter()
        waiting = self._waiting.setdefault(caller, deque())
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        self._plan_turn()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._has_turn = False
                self._plan_turn()
            raise
        return time.perf_counter() - began

    def _plan_turn(self) -> None:
        if self._waiting and not self._has_turn:
            self._has_turn = True
            delay_seconds = max(0.0, -self._count_left()) / SHARE
            asyncio.get_running_loop().call_later(delay_seconds, self._give_turn)

    def _give_turn(self) -> None:
        self._has_turn = False
        while self._waiting:
            caller, waiting = next(iter(self._waiting.items()))
            del self._waiting[caller]
            turn = waiting.popleft()
            if waiting:
                self._waiting[caller] = waiting  # at the end
            if not turn.done():
                self._has_turn = True
                turn.set_result(None)
                return
