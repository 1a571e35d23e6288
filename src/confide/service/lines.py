"""Waiting in line: within a process, saves of one config go one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from confide.domain.errors import Busy
from confide.domain.names import Key

MOST_IN_LINE = 1_000


class Lines:
    """One line for each config that is being saved; none for the others."""

    def __init__(self) -> None:
        self._lines: dict[Key, asyncio.Lock] = {}
        self._waiting: dict[Key, int] = {}

    @asynccontextmanager
    async def of(self, key: Key) -> AsyncIterator[None]:
        waiting = self._waiting.get(key, 0)
        if waiting >= MOST_IN_LINE:
            raise Busy(retry_after_seconds=1)
        line = self._lines.setdefault(key, asyncio.Lock())
        self._waiting[key] = waiting + 1
        try:
            async with line:
                yield
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key], self._lines[key]
