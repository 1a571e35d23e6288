"""Telling watchers of changes: each once, in the one order of the log, from wherever they left off."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

from confide.changes.errors import PositionGone
from confide.changes.model import Change, Position
from confide.changes.watchers import Watcher, WatcherIndex, WatchEvent
from confide.clock import boottime
from confide.configs.model import Kind
from confide.errors import Busy, DatabaseUnavailable, NotFound
from confide.identity.authenticator import Authenticator
from confide.identity.errors import InvalidToken
from confide.identity.model import Grant, Principal, Scope
from confide.server.stores import Store

TOLD = frozenset({Kind.SAVED, Kind.RETIRED, "type-changed"})
# What all watchers of a process share; who is further behind reads the store.
MAX_SHARED = 10_000
MAX_AT_ONCE = 200
MAX_READ = 1_000
MAX_WATCHERS = 50_000
# How soon the log is read again where nobody nudges, and after a nudge: something older may still be under way.
TICK_SECONDS = 0.3
AGAIN_SECONDS = (0.02, 0.06, 0.15)
CHECK_SECONDS = 0.2
# Watchers are woken so many at a time: others want to be answered too.
WOKEN_AT_ONCE = 100

_log = logging.getLogger("confide")


class Draining(Exception):
    """This process ends: go on elsewhere from the position."""


class WatchHub:
    """Reads the log once for all watchers of a process, while there are any."""

    def __init__(self, store: Store, authenticator: Authenticator, *, write: Callable[[Change], bytes]) -> None:
        self._store = store
        self._principals = authenticator
        self._write = write
        self._watchers = WatcherIndex()
        self._nudged = asyncio.Event()
        # Everything after `_begin` up to `_last` that is told; None while nobody watches.
        self._shared: deque[WatchEvent] = deque()
        self._begin: Position | None = None
        self._last = Position(0, 0)
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._watchers)

    def nudge(self) -> None:
        """Something was committed."""
        if self._watchers:
            self._nudged.set()

    def drain(self) -> None:
        """Say goodbye to everybody."""
        self._is_draining = True
        for watcher in self._watchers:
            self._end(watcher, Draining())

    async def join(self, token_hash: bytes, scope: Scope, *, after: Position | None) -> Watcher:
        """Begin to watch, after a position or from now on; `leave` ends it.

        Raises `InvalidToken`, `NotFound` where no grant covers anything that is wanted, or `PositionGone`.
        """
        checked = await self._principals.checked(token_hash)
        _must_see_something(checked.principal, scope)
        bounds = await self._store.configs.bounds()
        if after is not None and not bounds.begins <= after <= bounds.ends:
            raise PositionGone
        if self._is_draining or len(self._watchers) >= MAX_WATCHERS:
            raise Busy(retry_after_seconds=1)
        watcher = Watcher(token_hash, scope, checked, bounds.now if after is None else after)
        if self._begin is None:
            self._begin = self._last = bounds.now
        self._watchers.add(watcher)
        self._nudged.set()
        return watcher

    def leave(self, watcher: Watcher) -> None:
        self._watchers.drop(watcher)
        if not self._watchers:
            self._forget()

    async def next_for(self, watcher: Watcher) -> tuple[list[WatchEvent], Position]:
        """What comes next for a watcher, and the position once that is told; nothing if it is up to date.

        The watcher's position is moved by whoever has told it, never before.
        """
        if self._begin is None or watcher.position < self._begin:
            begin = self._begin
            changes = await self._store.configs.changes_after(watcher.position, limit=MAX_READ)
            told = [self._told(change) for change in changes if change.kind in TOLD and watcher.can_see(change)]
            if changes:
                return told, changes[-1].position
            # Nothing lies between, whatever came since: what is shared begins there.
            return told, watcher.position if begin is None else begin
        found: list[WatchEvent] = []
        for number, one in enumerate(self._after(watcher.position), 1):
            if watcher.can_see(one.change):
                found.append(one)
            if len(found) >= MAX_AT_ONCE or number >= MAX_READ:
                return found, one.position
        # Who comes from another process may be further than this one.
        return found, max(watcher.position, self._last)

    def is_up_to_date(self, watcher: Watcher) -> bool:
        return self._begin is not None and watcher.position >= self._last

    def settle(self, watcher: Watcher) -> None:
        """Who is live and was not woken has come as far as what is shared: none of it was for it."""
        if watcher.is_live:
            watcher.position = max(watcher.position, self._last)

    async def run(self) -> None:
        """Read the log while anybody watches, until cancelled."""
        again: list[float] = []
        check_at = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(again.pop(0) if again else TICK_SECONDS):
                    await self._nudged.wait()
            if self._nudged.is_set():
                self._nudged.clear()
                again = list(AGAIN_SECONDS)
            try:
                # Of all, however often something is saved, only now and then.
                if boottime() >= check_at:
                    check_at = boottime() + CHECK_SECONDS
                    await self._check_all()
                await self._read_on()
            except (DatabaseUnavailable, Busy) as error:
                _log.warning("watchers wait for the store: %s", error or "no answer in time")
            except Exception:  # noqa: BLE001 - watching must go on; who reconnects begins from where they were
                _log.exception("a bug, met while watching")
                self.end_all()

    def end_all(self) -> None:
        """The log is another than it was: whoever watches comes again and is told what holds."""
        for watcher in self._watchers:
            self._end(watcher, Draining())
        self._forget()

    def _forget(self) -> None:
        self._shared.clear()
        self._begin = None

    async def _read_on(self) -> None:
        while self._begin is not None:
            was = self._last
            changes = await self._store.configs.changes_after(was, limit=MAX_READ)
            if self._begin is None or self._last != was or not changes:
                return
            new = [self._told(change) for change in changes if change.kind in TOLD]
            self._shared.extend(new)
            self._last = changes[-1].position
            while len(self._shared) > MAX_SHARED:
                self._begin = self._shared.popleft().position
            await self._wake(new, was)

    async def _wake(self, new: list[WatchEvent], was: Position) -> None:
        # All of them before anybody else has a turn: who is live has come to the end of what is shared.
        concerned = self._watchers.concerned_by(told.change for told in new)
        for watcher in concerned:
            if watcher.is_live:
                watcher.position = max(watcher.position, was)  # what came before was not for it
                watcher.is_live = False
        for number, watcher in enumerate(concerned, 1):
            watcher.poke()
            if number % WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _check_all(self) -> None:
        """Show those who hear of nothing that the stream lives; end those whose token or last grant has ended."""
        now = boottime()
        for number, watcher in enumerate([one for one in self._watchers if now >= one.beat_at]):
            watcher.note_beat(now)
            self.settle(watcher)
            watcher.poke(is_beat=True)
            if number % WOKEN_AT_ONCE == WOKEN_AT_ONCE - 1:
                await asyncio.sleep(0)
        for watcher in [one for one in self._watchers if one.checked.is_over or now >= one.checked.expires]:
            try:
                watcher.checked = await self._principals.checked(watcher.token_hash)
                if watcher in self._watchers:  # who has left meanwhile does not come back
                    self._watchers.add(watcher)
                _must_see_something(watcher.checked.principal, watcher.scope)
            except (InvalidToken, NotFound) as refusal:
                self._end(watcher, refusal)

    def _end(self, watcher: Watcher, why: Exception) -> None:
        self.settle(watcher)
        watcher.is_live = False  # nobody wakes it any more
        watcher.is_over = watcher.is_over or why
        self._watchers.drop(watcher)
        watcher.poke()

    def _told(self, change: Change) -> WatchEvent:
        return WatchEvent(change.position, change, self._write(change))

    def _after(self, position: Position) -> Iterable[WatchEvent]:
        low, high = 0, len(self._shared)
        while low < high:
            middle = (low + high) // 2
            if self._shared[middle].position <= position:
                low = middle + 1
            else:
                high = middle
        return islice(self._shared, low, None)


def _must_see_something(principal: Principal, scope: Scope) -> None:
    groups: list[tuple[Grant, ...]] = [principal.grants]
    if principal.narrowed is not None:
        groups.append(principal.narrowed)
    if not all(any(grant.scope.overlaps(scope) for grant in group) for group in groups):
        raise NotFound
