"""Erase the bodies of old versions, and delete old rows of the change log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from confide.clock import MICROSECONDS_PER_SECOND, Clock
from confide.crypto.errors import IntegrityBroken
from confide.names import ConfigKey

if TYPE_CHECKING:
    from confide.configs.retention_store import RetentionStore
    from confide.integration_types.active import ActiveIntegrationTypes

# The intervals of the two background jobs.
PRUNE_SECONDS = 600
TRIM_SECONDS = 6 * 60 * 60
# The number of rows in one transaction.
BATCH_SIZE = 500
DAY_SECONDS = 24 * 60 * 60


class Retention:
    """Prunes versions and trims the change log in the background. Never erases a current version."""

    def __init__(
        self, retention: RetentionStore, types: ActiveIntegrationTypes, *, clock: Clock, log_days: int
    ) -> None:
        self._retention = retention
        self._types = types
        self._clock = clock
        self._log_days = log_days

    async def run_due_jobs(self) -> None:
        """Run the jobs that are due, unless another process has claimed them."""
        now = self._clock()
        if await self._retention.claim_job("prune", now=now, until=now + PRUNE_SECONDS * MICROSECONDS_PER_SECOND):
            await self.prune()
        if await self._retention.claim_job("trim", now=now, until=now + TRIM_SECONDS * MICROSECONDS_PER_SECOND):
            await self.trim()

    async def prune(self) -> int:
        """Erase the bodies of versions beyond the number that their integration type keeps. Keep their rows.

        Returns the number of erased bodies.
        """
        count = 0
        after: ConfigKey | None = None
        while batch := await self._retention.list_highest_versions(after=after, limit=BATCH_SIZE):
            for key, version in batch:
                after = key
                try:
                    keep = (await self._types.get(key.integration_type)).keep
                except IntegrityBroken:
                    continue  # erase nothing because of a type that was altered
                if version > keep:
                    count += await self._prune_config(key, until=version - keep)
            await asyncio.sleep(0)
        return count

    async def _prune_config(self, key: ConfigKey, *, until: int) -> int:
        count = after = 0
        while True:
            erased = await self._retention.prune(key, after=after, until=until, limit=BATCH_SIZE)
            count += len(erased)
            if len(erased) < BATCH_SIZE:
                return count
            after = erased[-1]
            await asyncio.sleep(0)

    async def trim(self) -> None:
        """Delete old rows of the change log, except the latest row of each config."""
        before = self._clock() - self._log_days * DAY_SECONDS * MICROSECONDS_PER_SECOND
        after: int | None = 0
        while after is not None:
            after = await self._retention.trim(before=before, after=after, limit=BATCH_SIZE)
            await asyncio.sleep(0)
