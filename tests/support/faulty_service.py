"""`confide serve` with the deliberate faults that `FAULT` names, separated by commas. Tests must detect each."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

from confide.caching.lease import Lease
from confide.caching.stamp_file import StampFile
from confide.caching.stamps import Stamps
from confide.changes.model import Change, Position
from confide.changes.subscriber import ChangeSubscriber
from confide.changes.watch import WatchHub
from confide.changes.watchers import Watcher
from confide.configs import store
from confide.configs.save import ConfigWriter
from confide.database.sqlite.engine import SqliteEngine
from confide.database.sqlite.writer import Writer

COMMIT_DELAY_SECONDS = 0.2
LOST_SAVE = 10
SWALLOWED_EVENTS = 10
_commits: set[asyncio.Task[Any]] = set()


def never_expire_lease() -> None:
    """Believe cached entries however old the last read of the change feed is."""

    def renew(self: Lease, sent_at: float) -> None:
        self.expires_at = sent_at + 1e9

    Lease.renew = renew  # type: ignore[method-assign]


def ignore_change_feed() -> None:
    """Ignore changes by other processes: cached entries end only by their time to live."""

    def apply(self: Any, change: Change) -> None:
        """Do nothing."""

    ChangeSubscriber._apply = apply  # type: ignore[method-assign]


def watch_by_id() -> None:
    """Resume a watch after the last ID, and so skip a change with a smaller ID that commits later."""
    store.POSTGRESQL_CHANGES_AFTER = """
        SELECT xid::text::bigint, id, kind, tenant, integration_type, version, subject FROM changes
        WHERE $1::text <> '' AND id > $2::bigint ORDER BY id LIMIT $3
    """
    bounds = store.PostgresqlConfigStore.read_bounds

    async def read_bounds(self: Any) -> Any:
        ((last,),) = await self._engine.query("SELECT coalesce(max(id), 0) FROM changes")
        known = await bounds(self)
        return known._replace(final=Position(0, last))

    store.PostgresqlConfigStore.read_bounds = read_bounds  # type: ignore[method-assign]
    Position.__gt__ = lambda self, other: self[1] > other[1]  # type: ignore[method-assign]


def send_position_before_event() -> None:
    """Send the new position to a watcher before the events that lead to it."""
    original = WatchHub.read_next

    async def read_next(self: WatchHub, watcher: Watcher) -> Any:
        found, position = await original(self, watcher)
        if not found:
            return found, position
        place = found[-1].encoded.split(b"\n", 1)[0]
        return [found[0]._replace(encoded=place + b"\n\n" + found[0].encoded), *found[1:]], position

    WatchHub.read_next = read_next  # type: ignore[method-assign]


def swallow_events() -> None:
    """Send a watcher only some of its events, and the positions of all."""
    original = WatchHub.read_next

    async def read_next(self: WatchHub, watcher: Watcher) -> Any:
        found, position = await original(self, watcher)
        return [one for one in found if one.change.position.id % SWALLOWED_EVENTS], position

    WatchHub.read_next = read_next  # type: ignore[method-assign]


def name_operations_by_arguments() -> None:
    """Put the arguments of a query into the name of its I/O operation."""
    original = SqliteEngine.search

    async def search(self: Any, sql: str, *args: Any) -> Any:
        self.io.record(f"sql {args}", 0)
        return await original(self, sql, *args)

    SqliteEngine.search = search  # type: ignore[method-assign]


def answer_before_commit() -> None:
    """Answer a save before its transaction commits."""
    for kind in (store.SqliteConfigStore, store.PostgresqlConfigStore):
        _delay_append(kind)


def _delay_append(kind: type[Any]) -> None:
    original = kind.append

    async def append(self: Any, new: Any, **more: Any) -> None:
        async def commit_later() -> None:
            await asyncio.sleep(COMMIT_DELAY_SECONDS)
            await original(self, new, **more)

        task = asyncio.create_task(commit_later())
        _commits.add(task)
        task.add_done_callback(_commits.discard)

    kind.append = append


def lose_save() -> None:
    """Answer the tenth save of a worker without storing it."""
    for kind in (store.SqliteConfigStore, store.PostgresqlConfigStore):
        _lose_append(kind)


def _lose_append(kind: type[Any]) -> None:
    original = kind.append
    numbers = itertools.count(1)

    async def append(self: Any, new: Any, **more: Any) -> None:
        # Never the first version, without which the load cannot begin.
        if new.version == 1 or next(numbers) != LOST_SAVE:
            await original(self, new, **more)

    kind.append = append


def keep_stamps_private() -> None:
    """Give each process stamps of its own."""

    def map_nothing(self: StampFile) -> None:
        self.fault = None

    StampFile._map = map_nothing  # type: ignore[method-assign]


def stamp_after_answer() -> None:
    """On PostgreSQL, stamp the slots of a change some time after its answer."""

    async def compare_and_stamp(self: Stamps, changes: Any) -> None:
        asyncio.get_running_loop().call_later(COMMIT_DELAY_SECONDS, self.stamp_unlocked, changes)

    Stamps.compare_and_stamp = compare_and_stamp  # type: ignore[method-assign]


def stamp_after_answer_unmarked() -> None:
    """On SQLite, neither mark the slots of a change nor stamp them before its answer."""
    stamp = Stamps.stamp_marked

    def mark_nothing(self: Stamps, changes: Any) -> None:
        """Do nothing."""

    def stamp_later(self: Stamps, changes: Any) -> None:
        threading.Timer(COMMIT_DELAY_SECONDS, stamp, (self, changes)).start()

    Stamps.mark_in_doubt = mark_nothing  # type: ignore[method-assign]
    Stamps.stamp_marked = stamp_later  # type: ignore[method-assign]


def die_before_commit() -> None:
    """Die after the slots are marked and before the commit, once the file `DIE_IF_EXISTS` exists."""
    commit = Writer._commit

    def die(self: Writer, jobs: Any) -> None:
        _die_on_request()
        commit(self, jobs)

    Writer._commit = die  # type: ignore[method-assign]


def die_after_commit() -> None:
    """Die after the commit and before the slots are stamped, once the file `DIE_IF_EXISTS` exists."""
    commit = Writer._commit

    def die(self: Writer, jobs: Any) -> None:
        commit(self, jobs)
        _die_on_request()

    Writer._commit = die  # type: ignore[method-assign]


def _die_on_request() -> None:
    if Path(os.environ["DIE_IF_EXISTS"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)


def log_bodies() -> None:
    """Log the configuration of each save."""
    original = ConfigWriter.save

    async def save(self: ConfigWriter, draft: Any, **more: Any) -> Any:
        logging.getLogger("confide").info("saving %s", draft.configuration)
        return await original(self, draft, **more)

    ConfigWriter.save = save  # type: ignore[method-assign]


def ignore_sigterm() -> None:
    """Block SIGTERM in this process and the workers that it spawns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


FAULTS = {
    "answer-before-commit": answer_before_commit,
    "arguments-in-operations": name_operations_by_arguments,
    "die-after-commit": die_after_commit,
    "die-before-commit": die_before_commit,
    "ignore-sigterm": ignore_sigterm,
    "log-bodies": log_bodies,
    "lose-save": lose_save,
    "no-change-feed": ignore_change_feed,
    "no-lease": never_expire_lease,
    "position-before-event": send_position_before_event,
    "swallow-events": swallow_events,
    "private-stamps": keep_stamps_private,
    "stamp-after-answer": stamp_after_answer,
    "stamp-after-answer-unmarked": stamp_after_answer_unmarked,
    "watch-by-id": watch_by_id,
}

# Not only in the main program: spawned workers import this module under another name.
for name in os.environ["FAULT"].split(","):
    FAULTS[name]()

if __name__ == "__main__":
    from confide.cli import main

    main()
