"""The queue of saves of one config, which backs off so that other processes get a turn."""

from __future__ import annotations

import asyncio
import random

from confide.keyed_lock import LockQueue

MAX_BACKOFF_SECONDS = 0.1


class SaveQueue(LockQueue):
    """The lock of one config, with the result of its last save in this process."""

    _has_competitor = False
    _last_version: int | None = None
    _last_seconds = 0.0

    async def back_off(self) -> None:
        """Pause if another process saves the same key, so that it gets a turn.

        Without a pause, the process that won a race would start again before the others have seen that they lost, and
        would win again.
        """
        if self._has_competitor:
            pause = random.uniform(0, 2 * self._last_seconds)  # noqa: S311 - fairness, not secrecy
            await asyncio.sleep(min(pause, MAX_BACKOFF_SECONDS))

    def record_turn(self, version: int, *, seconds: float, races_lost: int) -> None:
        """Record the result of a turn. A gap in the versions or a lost race means that another process competes."""
        if races_lost or self._last_version not in (None, version, version - 1):
            self._has_competitor = True
        self._last_version, self._last_seconds = version, seconds
