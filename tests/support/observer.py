"""An observer that reads each change itself and checks a second later that every service answers with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from confide.changes.feed import ChangeFeed
from confide.errors import DatabaseUnavailable
from confide.names import ConfigKey
from confide.server.stores import open_stores
from support.app import build_settings
from support.cluster import ConfigClient, merge_repeatedly
from support.processes import Service
from support.waiting import build_stop_condition

STALENESS_SECONDS = 1.0


@dataclass
class Observation:
    """Counts of an observer. A stale answer lacks a change that was committed more than a second earlier."""

    changes: int = 0
    checks: int = 0
    stale_answers: int = 0


async def observe(
    services: list[Service],
    token: str,
    key: ConfigKey,
    *,
    min_seconds: float,
    has_enough: Callable[[Observation], bool],
) -> Observation:
    """Save at the first service and check all services, for `min_seconds` and until there is enough."""
    settings = build_settings(services[0].folder.parent / "data", services[0]._env.get("CONFIDE_DATABASE"))
    store = open_stores(settings.database_url, is_unsafe=True)
    await store.database.open()
    seen = Observation()
    try:
        for service in services:
            async with ConfigClient(service, token, key) as client:
                await client.read()
        await store.change_feed.read()
        is_over = build_stop_condition(min_seconds=min_seconds, has_enough=lambda: has_enough(seen))
        watching = asyncio.create_task(_watch(store.change_feed, seen, services, token=token, key=key))
        await merge_repeatedly(ConfigClient(services[0], token, key, name="w"), until=is_over, pause_seconds=0.05)
        watching.cancel()
        await asyncio.wait([watching])
    finally:
        await store.close()
    return seen


async def _watch(feed: ChangeFeed, seen: Observation, services: list[Service], *, token: str, key: ConfigKey) -> None:
    async with asyncio.TaskGroup() as checks:
        while True:
            try:
                changes = [change for change in await feed.read() if change.key == key]
            except DatabaseUnavailable:
                changes = []
            for change in changes:
                seen.changes += 1
                checks.create_task(_check_services(seen, services, token, key=key, version=change.version or 0))
            await feed.wait()


async def _check_services(
    seen: Observation, services: list[Service], token: str, *, key: ConfigKey, version: int
) -> None:
    await asyncio.sleep(STALENESS_SECONDS)
    for service in services:
        async with ConfigClient(service, token, key) as client:
            reply = await client.read()
        if reply is not None and reply.status in (200, 404) and reply.header("config-freshness") is None:
            seen.checks += 1
            seen.stale_answers += int(reply.header("config-version") or 0) < version
