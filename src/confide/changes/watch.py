"""Send changes to watchers: each change once, in the order of the log, from the position of each watcher."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from confide.changes.errors import PositionGone, TooManyStreams
from confide.changes.model import Change, Position
from confide.changes.watchers import NextEvents, Watcher, WatcherIndex, WatchEvent
from confide.clock import read_boot_clock
from confide.configs.model import Kind
from confide.epoch import CurrentEpoch, Epoch
from confide.errors import Busy, DatabaseUnavailable, NotFound
from confide.identity.errors import InvalidToken
from confide.identity.model import Principal, Scope
from confide.telemetry.outage import Outage

if TYPE_CHECKING:
    from confide.configs.store import ConfigStore
    from confide.identity.authenticator import Authenticator

# For a watcher above a limit.
RETRY_SECONDS = 5
WATCHED_KINDS = frozenset({Kind.SAVED, Kind.DELETED, "type-changed"})
# The number of events that all watchers of a process share. A watcher further behind reads the database.
MAX_SHARED = 10_000
# The number of events that one send and one query return.
MAX_SENT = 200
MAX_READ = 1_000
# The hub reads the log at this interval. After a notification it reads again, because older transactions may commit.
POLL_SECONDS = 0.3
REREAD_SECONDS = (0.02, 0.06, 0.15)
# The interval of checks of tokens and heartbeats.
CHECK_SECONDS = 0.2
# After waking this many watchers, the hub lets other tasks run.
WAKE_BATCH_SIZE = 100

_log = logging.getLogger("confide")


class Draining(Exception):
    """This process ends. The client reconnects and continues from its position."""


class WatchHub:
    """Reads the change log once for all watchers of a process. Without watchers it does not read."""

    def __init__(
        self,
        configs: ConfigStore,
        authenticator: Authenticator,
        *,
        epoch: CurrentEpoch,
        encode: Callable[[Change], bytes],
        max_streams: int,
        max_streams_of_a_token: int,
    ) -> None:
        self._configs = configs
        self._authenticator = authenticator
        self._epoch = epoch
        self._encode = encode
        self._max_streams = max_streams
        self._max_streams_of_a_token = max_streams_of_a_token
        self._watchers = WatcherIndex()
        self._notified = asyncio.Event()
        # All events after `_start` up to `_end`. `_start` is None without watchers.
        self._outage = Outage()
        self._shared: deque[WatchEvent] = deque()
        self._start: Position | None = None
        self._end = Position(0, 0)
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._watchers)

    def notify(self) -> None:
        """Wake the hub, because a change was committed."""
        if self._watchers:
            self._notified.set()

    def drain(self) -> None:
        """End every stream, so that clients reconnect to another process."""
        self._is_draining = True
        for watcher in self._watchers:
            self._disconnect(watcher, Draining())

    async def join(self, token: str, scope: Scope, *, after: Position | None, epoch: Epoch) -> Watcher:
        """Add a watcher that starts after a position, or at the end of the log. The caller must call `leave`.

        `epoch` is the one in which the position was parsed.
        Raises `InvalidToken`, `NotFound` if no grant overlaps the scope, `PositionGone`, `Busy` or `TooManyStreams`.
        """
        credential = self._authenticator.parse(token)
        authenticated = await self._authenticator.authenticate(credential)
        _require_overlap(authenticated.principal, scope)
        bounds = await self._configs.read_bounds()
        is_in_log = after is None or bounds.start <= after <= bounds.end
        if not is_in_log or epoch != self._epoch.value:  # the epoch may have ended meanwhile
            raise PositionGone
        if self._is_draining:
            raise Busy(retry_after_seconds=1)
        if len(self._watchers) >= self._max_streams:
            raise Busy("This process has too many watchers. Try again.", retry_after_seconds=RETRY_SECONDS)
        if self._watchers.count(credential) >= self._max_streams_of_a_token:
            raise TooManyStreams(retry_after_seconds=RETRY_SECONDS)
        position = bounds.final if after is None else after
        watcher = Watcher(credential, scope, authenticated, position, epoch=epoch)
        if self._start is None:
            self._start = self._end = bounds.final
        self._watchers.add(watcher)
        self._notified.set()
        return watcher

    def leave(self, watcher: Watcher) -> None:
        self._watchers.remove(watcher)
        if not self._watchers:
            self._clear()

    async def read_next(self, watcher: Watcher) -> NextEvents:
        """Return the next events of a watcher. A watcher that is caught up gets no events.

        The caller moves the position of the watcher after it has sent the events, never before.
        """
        if self._start is None or watcher.position < self._start:
            start = self._start
            changes = await self._configs.read_changes_after(watcher.position, limit=MAX_READ)
            events = [self._to_event(one) for one in changes if one.kind in WATCHED_KINDS and watcher.can_see(one)]
            if changes:
                return NextEvents(events, changes[-1].position)
            # All changes before the shared events were read.
            return NextEvents(events, watcher.position if start is None else start)
        found: list[WatchEvent] = []
        for number, one in enumerate(self._list_events_after(watcher.position), 1):
            if watcher.can_see(one.change):
                found.append(one)
            if len(found) >= MAX_SENT or number >= MAX_READ:
                return NextEvents(found, one.position)
        # A watcher that reconnected from another process may be ahead of this one.
        return NextEvents(found, max(watcher.position, self._end))

    def is_up_to_date(self, watcher: Watcher) -> bool:
        return self._start is not None and watcher.position >= self._end

    def skip_to_end(self, watcher: Watcher) -> None:
        """Move a caught-up watcher to the end of the shared events. It was not woken, so it can see none of them."""
        if watcher.is_caught_up:
            watcher.position = max(watcher.position, self._end)

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
                # A check of all watchers is expensive, so notifications do not trigger it.
                if read_boot_clock() >= check_at:
                    check_at = read_boot_clock() + CHECK_SECONDS
                    await self._check_all()
                await self._read_log()
                if self._start is not None and (seconds := self._outage.end()) is not None:
                    _log.info("watch_log_available outage_seconds=%.1f", seconds)
            except (DatabaseUnavailable, Busy) as error:
                if (reason := self._outage.find_new_reason(error)) is not None:
                    _log.warning("watch_log_unavailable reason=%s", reason)
            except Exception:  # noqa: BLE001 - clients reconnect and continue from their positions
                _log.exception("watch_failed")
                self.disconnect_all()

    def disconnect_all(self, reason: type[Exception] = Draining) -> None:
        """End every stream, so that clients reconnect and continue from their positions."""
        for watcher in self._watchers:
            self._disconnect(watcher, reason())
        self._clear()

    def end_epoch(self) -> None:
        """End every stream, because the epoch of its positions has ended. A reconnect gets `PositionGone`."""
        self.disconnect_all(PositionGone)

    def _clear(self) -> None:
        self._shared.clear()
        self._start = None

    async def _read_log(self) -> None:
        while self._start is not None:
            previous_end = self._end
            changes = await self._configs.read_changes_after(previous_end, limit=MAX_READ)
            if self._start is None or self._end != previous_end or not changes:
                return
            new = [self._to_event(change) for change in changes if change.kind in WATCHED_KINDS]
            self._shared.extend(new)
            self._end = changes[-1].position
            while len(self._shared) > MAX_SHARED:
                self._start = self._shared.popleft().position
            await self._wake_watchers(new, previous_end)

    async def _wake_watchers(self, new: list[WatchEvent], previous_end: Position) -> None:
        # No await before all are marked: `skip_to_end` must not move a watcher past the new events.
        watchers = self._watchers.find_watchers_of(event.change for event in new)
        for watcher in watchers:
            if watcher.is_caught_up:
                watcher.position = max(watcher.position, previous_end)  # it can see no earlier event
                watcher.is_caught_up = False
        for number, watcher in enumerate(watchers, 1):
            watcher.wake()
            if number % WAKE_BATCH_SIZE == 0:
                await asyncio.sleep(0)

    async def _check_all(self) -> None:
        """Send due heartbeats, and end the streams whose token or last grant has ended."""
        now = read_boot_clock()
        for number, watcher in enumerate([one for one in self._watchers if now >= one.heartbeat_at]):
            watcher.schedule_heartbeat(now)
            self.skip_to_end(watcher)
            watcher.wake(is_heartbeat=True)
            if number % WAKE_BATCH_SIZE == WAKE_BATCH_SIZE - 1:
                await asyncio.sleep(0)
        for watcher in [one for one in self._watchers if one.token.is_invalid or now >= one.token.expires_at]:
            try:
                watcher.token = await self._authenticator.authenticate(watcher.credential)
                if watcher in self._watchers:  # it may have left during the check
                    self._watchers.add(watcher)
                _require_overlap(watcher.token.principal, watcher.scope)
            except (InvalidToken, NotFound) as error:
                self._disconnect(watcher, error)

    def _disconnect(self, watcher: Watcher, reason: Exception) -> None:
        self.skip_to_end(watcher)
        watcher.is_caught_up = False  # it is not woken again
        watcher.ended_by = watcher.ended_by or reason
        self._watchers.remove(watcher)
        watcher.wake()

    def _to_event(self, change: Change) -> WatchEvent:
        return WatchEvent(change.position, change, self._encode(change))

    def _list_events_after(self, position: Position) -> Iterable[WatchEvent]:
        low, high = 0, len(self._shared)
        while low < high:
            middle = (low + high) // 2
            if self._shared[middle].position <= position:
                low = middle + 1
            else:
                high = middle
        return islice(self._shared, low, None)


def _require_overlap(principal: Principal, scope: Scope) -> None:
    if not all(any(grant.scope.is_overlapping(scope) for grant in group) for group in principal.grant_groups):
        raise NotFound
