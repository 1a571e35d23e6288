"""Planted faults: `confide serve` whose memory is wrong in a way that `PLANTED` names. The tests must find each."""

from __future__ import annotations

import os
from typing import Any

from confide.caching.lease import Lease
from confide.changes.model import Change, Position
from confide.changes.subscriber import ChangeSubscriber
from confide.changes.watch import WatchHub
from confide.changes.watchers import Watcher
from confide.configs import store
from confide.database.sqlite.engine import SqliteEngine


def without_lease() -> None:
    """What is remembered is believed however long the log could not be read."""
    Lease.renew = lambda self, sent_at: setattr(self, "until", sent_at + 1e9)  # type: ignore[method-assign]


def without_news() -> None:
    """What others changed is not heard: entries end only with their time."""

    def tell_of(self: Any, change: Change) -> None:
        """Nothing."""

    ChangeSubscriber._apply = tell_of  # type: ignore[method-assign]


def by_id() -> None:
    """The watch goes on after the last number that it has seen, whatever was numbered earlier and committed later."""
    store.POSTGRESQL_CHANGES_AFTER = """
        SELECT xid::text::bigint, id, kind, tenant, integration_type, version, subject FROM changes
        WHERE $1::text <> '' AND id > $2::bigint ORDER BY id LIMIT $3
    """
    bounds = store.PostgresqlConfigStore.read_bounds

    async def by_number(self: Any) -> Any:
        ((last,),) = await self._engine.query("SELECT coalesce(max(id), 0) FROM changes")
        known = await bounds(self)
        return known._replace(now=Position(0, last))

    store.PostgresqlConfigStore.read_bounds = by_number  # type: ignore[method-assign]
    Position.__gt__ = lambda self, other: self[1] > other[1]  # type: ignore[method-assign]


def position_first() -> None:
    """The watch says that it has come so far before it has said what happened there."""
    read_next = WatchHub.read_next

    async def moved(self: WatchHub, watcher: Watcher) -> Any:
        found, position = await read_next(self, watcher)
        if not found:
            return found, position
        place = found[-1].written.split(b"\n", 1)[0]
        return [found[0]._replace(written=place + b"\n\n" + found[0].written), *found[1:]], position

    WatchHub.read_next = moved  # type: ignore[method-assign]


def talkative_events() -> None:
    """Operations are named by what they were asked with."""
    searched = SqliteEngine.search

    async def named(self: Any, sql: str, *args: Any) -> Any:
        self.io.record(f"sql {args}", 0)
        return await searched(self, sql, *args)

    SqliteEngine.search = named  # type: ignore[method-assign]


FAULTS = {
    "talkative-events": talkative_events,
    "lease": without_lease,
    "news": without_news,
    "cursor-by-id": by_id,
    "position-before-event": position_first,
}

if __name__ == "__main__":
    from confide.cli import main

    for name in os.environ["PLANTED"].split(","):
        FAULTS[name]()
    main()
