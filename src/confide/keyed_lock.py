"""Waiting in line: within a process, acts on one thing go one after the other."""

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
    """Those who wait for one thing; it lasts as long as anybody does."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
        self._has_rivals = False
        self._last_version: int | None = None
        self._last_seconds = 0.0

    async def back_off(self) -> None:
        """Let another process have its turn, if one was seen at the same thing.

        Who has just won begins again while the others still learn that they lost: without a pause of about
        the time that a save takes, the same process would go on winning.
        """
        if self._has_rivals:
            pause = random.uniform(0, 2 * self._last_seconds)  # noqa: S311 - fairness, not secrecy
            await asyncio.sleep(min(pause, MAX_BACKOFF_SECONDS))

    def record_turn(self, version: int, *, seconds: float, races_lost: int) -> None:
        """Remember how a turn went; a version that is not the next one was made by a rival."""
        if races_lost or self._last_version not in (None, version, version - 1):
            self._has_rivals = True
        self._last_version, self._last_seconds = version, seconds


class KeyedLock(Generic[K]):
    """One line for each thing that somebody waits for; raises `Busy` where too many do."""

    def __init__(self, *, max_queued: int) -> None:
        self._most = max_queued
        self._lines: dict[K, LockQueue] = {}

    @asynccontextmanager
    async def acquire(self, key: K) -> AsyncIterator[LockQueue]:
        line = self._lines.setdefault(key, LockQueue())
        if line.waiting >= self._most:
            raise Busy(retry_after_seconds=1)
        line.waiting += 1
        try:
            async with line.lock:
                yield line
        finally:
            line.waiting -= 1
            if not line.waiting:
                del self._lines[key]
