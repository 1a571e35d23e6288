"""Erasing what is older than its time: versions by their type, and the log by its days."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from confide.clock import SECOND, Clock
from confide.names import Key

if TYPE_CHECKING:
    from confide.configs.retention_store import RetentionStore
    from confide.integration_types.active import ActiveIntegrationTypes

PRUNE_SECONDS = 600
TRIM_SECONDS = 6 * 60 * 60
PORTION = 500
DAY_SECONDS = 24 * 60 * 60


class Retention:
    """Works in the background, in one process at a time, and never touches what is current."""

    def __init__(
        self, retention: RetentionStore, types: ActiveIntegrationTypes, *, clock: Clock, log_days: int
    ) -> None:
        self._retention = retention
        self._types = types
        self._clock = clock
        self._log_days = log_days

    async def work(self) -> None:
        """Do what it is time for, if it is this process's turn."""
        now = self._clock()
        if await self._retention.take_turn("prune", now=now, until=now + PRUNE_SECONDS * SECOND):
            await self.prune()
        if await self._retention.take_turn("trim", now=now, until=now + TRIM_SECONDS * SECOND):
            await self.trim()

    async def prune(self) -> int:
        """Erase what versions held that are older than the newest ones their type keeps; their rows stay."""
        count = 0
        after: Key | None = None
        while portion := await self._retention.depths(after=after, limit=PORTION):
            for key, version in portion:
                after = key
                keep = (await self._types.of(key.integration_type)).keep
                if version > keep:
                    count += await self._prune(key, until=version - keep)
            await asyncio.sleep(0)
        return count

    async def _prune(self, key: Key, *, until: int) -> int:
        count = after = 0
        while True:
            erased = await self._retention.prune(key, after=after, until=until, limit=PORTION)
            count += len(erased)
            if len(erased) < PORTION:
                return count
            after = erased[-1]
            await asyncio.sleep(0)

    async def trim(self) -> None:
        """Let rows of the log go that are older than its days and no config's latest."""
        before = self._clock() - self._log_days * DAY_SECONDS * SECOND
        after: int | None = 0
        while after is not None:
            after = await self._retention.trim(before=before, after=after, limit=PORTION)
            await asyncio.sleep(0)
