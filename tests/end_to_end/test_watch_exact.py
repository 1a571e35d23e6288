"""Watchers that reconnect, beside writers and killed services, receive each change once and in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from confide.names import ConfigKey
from support.cluster import run_cluster
from support.postgres import PostgresServer
from support.waiting import MAX_WAIT_SECONDS
from support.watchers import TYPES, Watcher, count_versions, find_violations, hold_transactions_open, write_versions

WRITERS, WATCHERS, MIN_RECONNECTS = 8, 10, 200
# More than the minimum: the watcher of the slow writer receives too few events to disconnect so often.
DISCONNECTS = 25
EVENTS = 6_000


async def run_watchers(
    folder: Path, database: str | None, *, events: int, fault: str = "", kills: int = 3
) -> list[str]:
    """Return the violations of one run with that many events. With a deliberate fault, wait less for missing events."""
    chance = random.Random(4)
    keys = [ConfigKey(f"tenant{n % 4}", TYPES[n % 2]) for n in range(WRITERS)]
    lingering = ConfigKey("linger", "crm")
    async with run_cluster(folder, 2, database=database, fault=fault) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        async with services[0].async_client(token) as client:
            start = (await client.get("/watch", params={"wait": "0"})).json()
        scopes = ["*", "*", "*", "*", "tenant0", "tenant1", "tenant2", "tenant3", "linger", "*"]
        watchers = [Watcher(services, token, random.Random(n), scopes[n], DISCONNECTS) for n in range(WATCHERS)]
        is_over = False
        total: dict[ConfigKey, int] = {}

        async def wait_for_events(count: int) -> None:
            # Bounded by the time limit of the test.
            while max(len(watcher.received) for watcher in watchers) < count:  # noqa: ASYNC110 - a counter has no event
                await asyncio.sleep(0.05)

        def is_done(watcher: Watcher) -> bool:
            # Events arrive in log order: after the newest one, a missing one never comes.
            mine = {key: count for key, count in total.items() if count and watcher.tenant in ("*", key.tenant)}
            return is_over and bool(total) and mine.items() <= watcher.newest.items()

        watching = [asyncio.create_task(watcher.watch(start["position"], is_done=is_done)) for watcher in watchers]
        writing: list[asyncio.Task[Any]] = [
            asyncio.create_task(write_versions(services[n % 2], token, key, until=lambda: is_over))
            for n, key in enumerate(keys)
        ]
        if database is not None:
            writing.append(asyncio.create_task(hold_transactions_open(database, lingering, until=lambda: is_over)))
        for kill in range(1, kills + 1):
            await wait_for_events(events * kill // (kills + 1))
            victim = chance.choice(services)
            victim.kill()
            await asyncio.to_thread(victim.start)
        await wait_for_events(events)
        is_over = True
        await asyncio.gather(*writing)
        counted = await count_versions(services[0], token, [*keys, lingering])
        total.update(counted)
        _, late = await asyncio.wait(watching, timeout=10 if fault else MAX_WAIT_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.wait(watching)
        assert sum(watcher.reconnects for watcher in watchers) >= (1 if fault else MIN_RECONNECTS)
        print(f"{sum(counted.values()):,} changes, {sum(w.reconnects for w in watchers)} reconnects, {kills} kills")
        return find_violations(watchers, counted)


@pytest.fixture
def url(engine: str, request: pytest.FixtureRequest) -> Iterator[str | None]:
    if engine == "sqlite":
        yield None
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    yield server.new_database()


@pytest.mark.timeout(600)
async def test_each_watcher_receives_each_change_once_and_in_order(tmp_path: Path, url: str | None) -> None:
    assert await run_watchers(tmp_path, url, events=EVENTS) == []


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_each_of_100_000_changes_arrives_once_and_in_order(tmp_path: Path, url: str | None) -> None:
    assert await run_watchers(tmp_path, url, events=100_000, kills=15) == []


async def test_a_watch_by_id_that_misses_late_commits_is_detected(tmp_path: Path, postgres: PostgresServer) -> None:
    assert await run_watchers(tmp_path, postgres.new_database(), events=1_500, fault="watch-by-id", kills=0)


async def test_a_position_that_is_sent_before_its_event_is_detected(tmp_path: Path, url: str | None) -> None:
    assert await run_watchers(tmp_path, url, events=3_000, fault="position-before-event", kills=0)
