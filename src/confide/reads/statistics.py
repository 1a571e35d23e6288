"""The usage ledger: which token read which config, when last and how often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from confide.clock import Clock
from confide.errors import Busy, DatabaseUnavailable, NotFound
from confide.identity.model import Principal, Role
from confide.names import Key
from confide.reads.model import AccessSummary, ReadCount

if TYPE_CHECKING:
    from confide.configs.store import ConfigStore
    from confide.identity.access import Access
    from confide.reads.statistics_store import AccessStatisticsStore

FLUSH_SECONDS = 10.0
FLUSHED_AT_ONCE = 500
# Pairs of token and key that wait to be written; what comes on top is lost, and counted.
MAX_WAITING = 100_000
MAX_SHOWN = 1_000

_log = logging.getLogger("confide")


class AccessStatistics:
    """Adds up reads in memory and writes them in batches; a crash loses those of the last ten seconds at most."""

    def __init__(
        self, configs: ConfigStore, statistics: AccessStatisticsStore, *, access: Access, clock: Clock
    ) -> None:
        self._configs = configs
        self._statistics = statistics
        self._access = access
        self._clock = clock
        self._waiting: dict[tuple[int, Key], ReadCount] = {}
        # Reads that could not be kept; a plain integer, as in reading.
        self.lost = 0

    def take_in(self, reads: Mapping[tuple[int, Key], int]) -> None:
        """Reads since this was last called, by token and key."""
        now = self._clock()
        for who, count in reads.items():
            known = self._waiting.get(who)
            if known is None and len(self._waiting) >= MAX_WAITING:
                self.lost += count
            else:
                self._waiting[who] = ReadCount(who[1], who[0], now, count + (0 if known is None else known.reads))

    async def run(self) -> None:
        """Write now and then until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; what the store does not take now waits on."""
        while self._waiting:
            portion = [self._waiting.pop(who) for who in list(islice(self._waiting, FLUSHED_AT_ONCE))]
            try:
                await self._statistics.add(portion)
            except (DatabaseUnavailable, Busy) as error:
                # Perhaps it was written all the same: a count may then be too high, never too low.
                self._put_back(portion)
                _log.warning("access_statistics_postponed reason=%s", error or "timeout")
                return
            except asyncio.CancelledError:
                self._put_back(portion)
                raise
            except Exception:  # noqa: BLE001 - reads go on
                self.lost += sum(one.reads for one in portion)
                _log.exception("access_statistics_failed")

    async def of(self, key: Key, *, principal: Principal) -> list[AccessSummary]:
        """Who read a config, the latest first; for those who may save it. Raises `NotFound`."""
        await self._access.require_role(Role.EDITOR, key, principal=principal, action="read usage")
        if await self._configs.read(key) is None:
            raise NotFound
        return await self._statistics.of(key, limit=MAX_SHOWN)

    def _put_back(self, portion: list[ReadCount]) -> None:
        for one in portion:
            who = (one.token_id, one.key)
            known = self._waiting.get(who)
            if known is not None:
                one = ReadCount(  # noqa: PLW2901 - the sum of both
                    one.key, one.token_id, max(one.last_read_at, known.last_read_at), one.reads + known.reads
                )
            self._waiting[who] = one
