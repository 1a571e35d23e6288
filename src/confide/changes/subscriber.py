"""Hearing what others changed, so that what this process remembers stays true."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from confide.caching.lease import Lease
from confide.caching.memory import BoundedMemory
from confide.changes.model import Change, ChangeFeedReset
from confide.changes.watch import WatchHub
from confide.clock import boottime
from confide.configs.model import Kind
from confide.errors import DatabaseUnavailable
from confide.identity.authenticator import Authenticator
from confide.integration_types.active import ActiveIntegrationTypes
from confide.reads.cache import Cache
from confide.server.stores import ChangeFeed

# How soon the log is tried again after it could not be read.
AGAIN_SECONDS = 0.1

_log = logging.getLogger("confide")


class ChangeSubscriber:
    """Reads the change log on and on, tells the memory, and only then renews the lease."""

    def __init__(
        self,
        news: ChangeFeed,
        *,
        lease: Lease,
        memory: BoundedMemory[Any],
        cache: Cache,
        authenticator: Authenticator,
        types: ActiveIntegrationTypes,
        watching: WatchHub,
    ) -> None:
        self._types = types
        self._watching = watching
        self._news = news
        self._lease = lease
        self._memory = memory
        self._cache = cache
        self._principals = authenticator
        self._is_deaf = False
        self._has_begun = False
        # Plain integers, as in reading.
        self.heard = 0
        self.forgotten = 0

    async def run(self) -> None:
        """Listen until cancelled. Whatever goes wrong, the lease ends and reads go to the store."""
        while True:
            if await self.hear():
                await self._news.wait()
            else:
                await asyncio.sleep(AGAIN_SECONDS)

    async def hear(self) -> bool:
        """Read the log once; False if it could not be read."""
        sent_at = boottime()
        try:
            self._take_in(await self._news.read())
        except ChangeFeedReset:
            _log.warning("the change log cannot be read on: everything remembered is forgotten")
            self.forget_all()
            self._watching.end_all()
            return True
        except (DatabaseUnavailable, TimeoutError) as error:
            self._note_deaf(error)
            return False
        except Exception:  # noqa: BLE001 - listening must go on
            _log.exception("a bug, met while listening")
            self.forget_all()  # something may have been read and not been heard
            return False
        self._is_deaf = False
        self._lease.renew(sent_at)
        return True

    def forget_all(self) -> None:
        """Remember nothing, and let nothing land that is under way."""
        self.forgotten += 1
        self._forget()

    def hear_of_type(self, name: str) -> None:
        """A type was changed, here or elsewhere."""
        self._types.forget(name)
        self._cache.hear_of_type(name)

    def _forget(self) -> None:
        self._cache.supersede_all()
        self._types.supersede_all()
        self._principals.supersede_all()
        self._memory.clear()

    def _take_in(self, changes: list[Change]) -> None:
        if not self._has_begun:
            # The first read hears of nothing: what was remembered before it was never proven.
            self._forget()
            self._has_begun = True
        for change in changes:
            self._tell_of(change)
        self.heard += len(changes)
        if changes:
            self._watching.nudge()

    def _tell_of(self, change: Change) -> None:
        if change.key is not None:
            self._cache.hear(change.key, change.version or 0, is_retired=change.kind == Kind.RETIRED)
        elif change.kind == "type-changed" and change.integration_type is not None:
            self.hear_of_type(change.integration_type)
        elif change.subject is None:
            return
        elif change.kind in ("user-changed", "user-removed"):
            self._principals.forget_user(change.subject)
        elif change.kind == "token-revoked":
            self._principals.forget_token(change.subject)

    def _note_deaf(self, error: Exception) -> None:
        if not self._is_deaf:
            self._is_deaf = True
            _log.warning("the change log cannot be read: reads go to the store (%s)", error or "no answer in time")
