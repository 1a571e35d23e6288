"""W-exact: writers, watchers that are cut again and again, and workers that are killed: each change once, in order."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from confide.names import Key
from support.cluster import run_cluster
from support.postgres import PostgresServer
from support.watchers import TYPES, Watcher, count_versions, find_violations, hold_transactions_open, write_versions

WRITERS, WATCHERS, RECONNECTS = 8, 10, 200


async def run(folder: Path, database: str | None, *, events: int, fault: str = "", kills: int = 3) -> list[str]:
    """Return the violations of one run with that many events. With a deliberate fault, wait less for missing events."""
    chance = random.Random(4)
    keys = [Key(f"tenant{n % 4}", TYPES[n % 2]) for n in range(WRITERS)]
    lingering = Key("linger", "crm")
    async with run_cluster(folder, 2, database=database, fault=fault) as services:
        token = await asyncio.to_thread(services[0].add_admin)
        async with services[0].async_client(token) as client:
            begun = (await client.get("/watch", params={"wait": "0"})).json()
        scopes = ["*", "*", "*", "*", "tenant0", "tenant1", "tenant2", "tenant3", "linger", "*"]
        watchers = [
            Watcher(services, token, random.Random(n), scopes[n], RECONNECTS // WATCHERS) for n in range(WATCHERS)
        ]
        is_over = False
        total: dict[Key, int] = {}

        async def have_heard(count: int) -> None:
            while max(len(watcher.told) for watcher in watchers) < count:  # noqa: ASYNC110 - other processes tell
                await asyncio.sleep(0.05)

        def is_done(watcher: Watcher) -> bool:
            # In the order of the log: once the newest is heard, what is missing will never come.
            mine = {key: count for key, count in total.items() if count and watcher.tenant in ("*", key.tenant)}
            return is_over and bool(total) and mine.items() <= watcher.newest.items()

        watching = [asyncio.create_task(watcher.watch(begun["position"], is_done=is_done)) for watcher in watchers]
        writing: list[asyncio.Task[Any]] = [
            asyncio.create_task(write_versions(services[n % 2], token, key, until=lambda: is_over))
            for n, key in enumerate(keys)
        ]
        if database is not None:
            writing.append(asyncio.create_task(hold_transactions_open(database, lingering, until=lambda: is_over)))
        for kill in range(1, kills + 1):
            await have_heard(events * kill // (kills + 1))
            victim = chance.choice(services)
            victim.kill()
            await asyncio.to_thread(victim.start)
        await have_heard(events)
        is_over = True
        await asyncio.gather(*writing)
        counted = await count_versions(services[0], token, [*keys, lingering])
        total.update(counted)
        _, late = await asyncio.wait(watching, timeout=10 if fault else 100)
        for task in late:
            task.cancel()
        await asyncio.wait(watching)
        assert sum(watcher.reconnects for watcher in watchers) >= (RECONNECTS if events >= 20_000 else 1)
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
async def test_each_change_is_told_to_each_watcher_once_and_in_order(tmp_path: Path, url: str | None) -> None:
    events = int(os.environ.get("CONFIDE_TEST_EVENTS", "20000"))
    assert await run(tmp_path, url, events=events) == []


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_each_of_100_000_changes_is_told_once_and_in_order(tmp_path: Path, url: str | None) -> None:
    assert await run(tmp_path, url, events=100_000, kills=15) == []


async def test_a_cursor_by_id_is_found(tmp_path: Path, postgres: PostgresServer) -> None:
    assert await run(tmp_path, postgres.new_database(), events=1_500, fault="watch-by-id", kills=0)


async def test_a_position_that_moves_before_the_event_is_sent_is_found(tmp_path: Path, url: str | None) -> None:
    assert await run(tmp_path, url, events=3_000, fault="position-before-event", kills=0)
