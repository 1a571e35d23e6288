"""Whether the database has space: not after a write that failed for lack of it, until a probe succeeds."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from confide.errors import DatabaseFull, describe_error

# A save needs less than this, with its audit entry and its index pages.
NEEDED_BYTES = 1024 * 1024
# The minimum time between probes, because each health check asks for one.
PROBE_SECONDS = 1.0
# Without health checks nothing probes, so a failure is logged again after this time.
LOG_AGAIN_SECONDS = 600.0

_log = logging.getLogger("confide")


class StorageState:
    """Remembers that a write failed for lack of space, until a probe succeeds."""

    def __init__(self) -> None:
        self._failure: DatabaseFull | None = None
        self._began = self._logged_at = self._probed_at = 0.0

    def record(self, failure: DatabaseFull) -> None:
        """Record a failed write, from any thread. The first one is logged."""
        now = time.monotonic()
        if self._failure is None:
            self._began = now
        if self._failure is None or now - self._logged_at > LOG_AGAIN_SECONDS:
            self._logged_at = now
            _log.error("storage_full reason=%s", describe_error(failure))
        self._failure, self._probed_at = failure, now

    async def check(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Raise the recorded failure unless `probe` finds space again. Without space, a probe raises `DatabaseFull`."""
        if self._failure is None:
            return
        now = time.monotonic()
        if now - self._probed_at < PROBE_SECONDS:
            raise DatabaseFull(describe_error(self._failure))
        self._probed_at = now
        await probe()
        self._failure = None
        _log.info("storage_available outage_seconds=%.1f", now - self._began)
