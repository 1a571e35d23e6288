"""Access statistics: which token read which config, when last and how often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from confide.clock import Clock
from confide.errors import Busy, DatabaseUnavailable, NotFound
from confide.identity.model import Principal, Role
from confide.names import ConfigKey
from confide.reads.model import AccessSummary, ReadCount
from confide.telemetry.outage import Outage

if TYPE_CHECKING:
    from confide.configs.store import ConfigStore
    from confide.identity.access import Access
    from confide.reads.statistics_store import AccessStatisticsStore

FLUSH_SECONDS = 10.0
MAX_FLUSHED = 500
# Pairs of token and key that wait to be written. Reads of further pairs are dropped and counted.
MAX_WAITING = 100_000
MAX_LISTED = 1_000

_log = logging.getLogger("confide")


class AccessStatistics:
    """Adds up reads in memory and writes them in batches. A crash loses the reads of at most the last ten seconds."""

    def __init__(
        self, configs: ConfigStore, statistics: AccessStatisticsStore, *, access: Access, clock: Clock
    ) -> None:
        self._configs = configs
        self._statistics = statistics
        self._access = access
        self._clock = clock
        self._outage = Outage()
        self._waiting: dict[tuple[int, ConfigKey], ReadCount] = {}
        # Reads that were dropped.
        self.lost = 0

    def add_reads(self, reads: Mapping[tuple[int, ConfigKey], int]) -> None:
        """Add numbers of reads by token and key."""
        now = self._clock()
        for pair, count in reads.items():
            waiting = self._waiting.get(pair)
            if waiting is None and len(self._waiting) >= MAX_WAITING:
                self.lost += count
            else:
                token_id, key = pair
                self._waiting[pair] = ReadCount(key, token_id, now, count + (0 if waiting is None else waiting.reads))

    async def run(self) -> None:
        """Write every ten seconds until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits. If the database is unavailable, it waits for the next flush."""
        while self._waiting:
            batch = [self._waiting.pop(pair) for pair in list(islice(self._waiting, MAX_FLUSHED))]
            try:
                await self._statistics.add(batch)
                self._outage.end()
            except (DatabaseUnavailable, Busy) as error:
                # The batch may have been written. Then a count becomes too high, never too low.
                self._put_back(batch)
                if (reason := self._outage.find_new_reason(error)) is not None:
                    _log.warning("access_statistics_postponed reason=%s", reason)
                return
            except asyncio.CancelledError:
                self._put_back(batch)
                raise
            except Exception:  # noqa: BLE001 - statistics must not stop reads
                self.lost += sum(count.reads for count in batch)
                _log.exception("access_statistics_failed")

    async def list_readers(self, key: ConfigKey, *, principal: Principal) -> list[AccessSummary]:
        """List the tokens that read a config, the latest first. Requires the editor role; raises `NotFound`."""
        await self._access.require_role(Role.EDITOR, key, principal=principal, action="read usage")
        if await self._configs.read(key) is None:
            raise NotFound
        return await self._statistics.list_readers(key, limit=MAX_LISTED)

    def _put_back(self, batch: list[ReadCount]) -> None:
        for count in batch:
            pair = (count.token_id, count.key)
            newer = self._waiting.get(pair)
            if newer is None:
                self._waiting[pair] = count
            else:
                last_read_at = max(count.last_read_at, newer.last_read_at)
                self._waiting[pair] = ReadCount(count.key, count.token_id, last_read_at, count.reads + newer.reads)
