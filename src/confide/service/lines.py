"""Waiting in line: within a process, acts on one thing go one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from confide.domain.errors import Busy

K = TypeVar("K", bound=Hashable)


class Lines(Generic[K]):
    """One line for each thing that somebody waits for; raises `Busy` where too many do."""

    def __init__(self, *, most_in_line: int) -> None:
        self._most = most_in_line
        self._lines: dict[K, asyncio.Lock] = {}
        self._waiting: dict[K, int] = {}

    @asynccontextmanager
    async def of(self, key: K) -> AsyncIterator[None]:
        waiting = self._waiting.get(key, 0)
        if waiting >= self._most:
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
