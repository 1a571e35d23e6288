"""Send changes to watchers: each once, in the order of the log, from the position of each watcher."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from confide.changes.errors import PositionGone
from confide.changes.model import Change, Position
from confide.changes.watchers import Watcher, WatcherIndex, WatchEvent
from confide.clock import boottime
from confide.configs.model import Kind
from confide.errors import Busy, DatabaseUnavailable, NotFound
from confide.identity.errors import InvalidToken
from confide.identity.model import Credential, Grant, Principal, Scope

if TYPE_CHECKING:
    from confide.configs.store import ConfigStore
    from confide.identity.authenticator import Authenticator

WATCHED_KINDS = frozenset({Kind.SAVED, Kind.DELETED, "type-changed"})
# Events that all watchers of a process share; a watcher further behind reads the database.
MAX_SHARED = 10_000
MAX_AT_ONCE = 200
MAX_READ = 1_000
MAX_WATCHERS = 50_000
# The log is read at this interval, and again after a notification: older transactions may commit later.
POLL_SECONDS = 0.3
REREAD_SECONDS = (0.02, 0.06, 0.15)
CHECK_SECONDS = 0.2
# After waking this many watchers, the event loop serves other requests.
WOKEN_AT_ONCE = 100

_log = logging.getLogger("confide")


class Draining(Exception):
    """This process ends; the client reconnects from its position."""


class WatchHub:
    """Reads the log once for all watchers of a process, while there is at least one."""

    def __init__(self, configs: ConfigStore, authenticator: Authenticator, *, write: Callable[[Change], bytes]) -> None:
        self._configs = configs
        self._principals = authenticator
        self._write = write
        self._watchers = WatcherIndex()
        self._notified = asyncio.Event()
        # All watched events after `_begin` up to `_last`; `_begin` is None without watchers.
        self._shared: deque[WatchEvent] = deque()
        self._begin: Position | None = None
        self._last = Position(0, 0)
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._watchers)

    def publish(self) -> None:
        """Read the log soon, because a change was committed."""
        if self._watchers:
            self._notified.set()

    def drain(self) -> None:
        """End every stream, so that clients reconnect to another process."""
        self._is_draining = True
        for watcher in self._watchers:
            self._disconnect(watcher, Draining())

    async def join(self, credential: Credential, scope: Scope, *, after: Position | None) -> Watcher:
        """Start to watch after a position, or from now on; `leave` stops it.

        Raises `InvalidToken`, `NotFound` if no grant overlaps the scope, `PositionGone`, or `Busy`.
        """
        checked = await self._principals.authenticate(credential)
        _require_overlap(checked.principal, scope)
        bounds = await self._configs.read_bounds()
        if after is not None and not bounds.begins <= after <= bounds.ends:
            raise PositionGone
        if self._is_draining or len(self._watchers) >= MAX_WATCHERS:
            raise Busy(retry_after_seconds=1)
        watcher = Watcher(credential, scope, checked, bounds.now if after is None else after)
        if self._begin is None:
            self._begin = self._last = bounds.now
        self._watchers.add(watcher)
        self._notified.set()
        return watcher

    def leave(self, watcher: Watcher) -> None:
        self._watchers.drop(watcher)
        if not self._watchers:
            self._forget()

    async def read_next(self, watcher: Watcher) -> tuple[list[WatchEvent], Position]:
        """Return the next events of a watcher and its position after them; no events if it is caught up.

        The caller moves the watcher's position after it has sent the events, never before.
        """
        if self._begin is None or watcher.position < self._begin:
            begin = self._begin
            changes = await self._configs.read_changes_after(watcher.position, limit=MAX_READ)
            events = [self._to_event(one) for one in changes if one.kind in WATCHED_KINDS and watcher.can_see(one)]
            if changes:
                return events, changes[-1].position
            # There is no change before the shared events.
            return events, watcher.position if begin is None else begin
        found: list[WatchEvent] = []
        for number, one in enumerate(self._events_after(watcher.position), 1):
            if watcher.can_see(one.change):
                found.append(one)
            if len(found) >= MAX_AT_ONCE or number >= MAX_READ:
                return found, one.position
        # A watcher that came from another process may be ahead of this one.
        return found, max(watcher.position, self._last)

    def is_up_to_date(self, watcher: Watcher) -> bool:
        return self._begin is not None and watcher.position >= self._last

    def skip_to_end(self, watcher: Watcher) -> None:
        """Move a caught-up watcher that was not woken to the end of the shared events; none concerned it."""
        if watcher.is_caught_up:
            watcher.position = max(watcher.position, self._last)

    async def run(self) -> None:
        """Read the log while there are watchers, until cancelled."""
        rereads: list[float] = []
        check_at = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(rereads.pop(0) if rereads else POLL_SECONDS):
                    await self._notified.wait()
            if self._notified.is_set():
                self._notified.clear()
                rereads = list(REREAD_SECONDS)
            try:
                # Checking all watchers is expensive, so saves do not trigger it.
                if boottime() >= check_at:
                    check_at = boottime() + CHECK_SECONDS
                    await self._check_all()
                await self._read_on()
            except (DatabaseUnavailable, Busy) as error:
                _log.warning("watch_log_unavailable reason=%s", error or "timeout")
            except Exception:  # noqa: BLE001 - the loop must go on; clients reconnect from their position
                _log.exception("watch_failed")
                self.disconnect_all()

    def disconnect_all(self) -> None:
        """End every stream after the log was reset, so that clients reconnect and resume."""
        for watcher in self._watchers:
            self._disconnect(watcher, Draining())
        self._forget()

    def _forget(self) -> None:
        self._shared.clear()
        self._begin = None

    async def _read_on(self) -> None:
        while self._begin is not None:
            was = self._last
            changes = await self._configs.read_changes_after(was, limit=MAX_READ)
            if self._begin is None or self._last != was or not changes:
                return
            new = [self._to_event(change) for change in changes if change.kind in WATCHED_KINDS]
            self._shared.extend(new)
            self._last = changes[-1].position
            while len(self._shared) > MAX_SHARED:
                self._begin = self._shared.popleft().position
            await self._wake_concerned(new, was)

    async def _wake_concerned(self, new: list[WatchEvent], was: Position) -> None:
        # No await before all are marked: a caught-up watcher must not skip the new events.
        concerned = self._watchers.find_concerned(event.change for event in new)
        for watcher in concerned:
            if watcher.is_caught_up:
                watcher.position = max(watcher.position, was)  # no earlier event concerned it
                watcher.is_caught_up = False
        for number, watcher in enumerate(concerned, 1):
            watcher.wake()
            if number % WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _check_all(self) -> None:
        """Send due heartbeats, and end the streams whose token or last grant has ended."""
        now = boottime()
        for number, watcher in enumerate([one for one in self._watchers if now >= one.heartbeat_at]):
            watcher.schedule_heartbeat(now)
            self.skip_to_end(watcher)
            watcher.wake(is_beat=True)
            if number % WOKEN_AT_ONCE == WOKEN_AT_ONCE - 1:
                await asyncio.sleep(0)
        for watcher in [one for one in self._watchers if one.checked.is_invalid or now >= one.checked.expires]:
            try:
                watcher.checked = await self._principals.authenticate(watcher.credential)
                if watcher in self._watchers:  # it may have left during the check
                    self._watchers.add(watcher)
                _require_overlap(watcher.checked.principal, watcher.scope)
            except (InvalidToken, NotFound) as error:
                self._disconnect(watcher, error)

    def _disconnect(self, watcher: Watcher, reason: Exception) -> None:
        self.skip_to_end(watcher)
        watcher.is_caught_up = False  # it is never woken again
        watcher.ended_by = watcher.ended_by or reason
        self._watchers.drop(watcher)
        watcher.wake()

    def _to_event(self, change: Change) -> WatchEvent:
        return WatchEvent(change.position, change, self._write(change))

    def _events_after(self, position: Position) -> Iterable[WatchEvent]:
        low, high = 0, len(self._shared)
        while low < high:
            middle = (low + high) // 2
            if self._shared[middle].position <= position:
                low = middle + 1
            else:
                high = middle
        return islice(self._shared, low, None)


def _require_overlap(principal: Principal, scope: Scope) -> None:
    groups: list[tuple[Grant, ...]] = [principal.grants]
    if principal.narrowed is not None:
        groups.append(principal.narrowed)
    if not all(any(grant.scope.overlaps(scope) for grant in group) for group in groups):
        raise NotFound
