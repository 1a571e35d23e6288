"""An observer: it hears each change for itself, and a second later asks every process whether it knows of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from confide.changes.feed import ChangeFeed
from confide.errors import DatabaseUnavailable
from confide.names import Key
from confide.server.stores import open_stores
from support.app import build_settings
from support.cluster import ConfigClient, merge_repeatedly
from support.processes import Service

BOUND_SECONDS = 1.0


@dataclass
class Observation:
    """What an observer saw; inconsistencies are answers that lack what was heard of more than a second ago."""

    changes: int = 0
    inconsistencies: int = 0


async def observe(services: list[Service], token: str, key: Key, *, seconds: float) -> Observation:
    """Save at the first service for a while, and observe all of them."""
    settings = build_settings(services[0].folder.parent / "data", services[0]._env.get("CONFIDE_DATABASE"))
    store = open_stores(settings.database_url, is_unsafe=True)
    await store.database.open()
    seen = Observation()
    callers = [ConfigClient(service, token, key) for service in services]
    try:
        end = asyncio.get_running_loop().time() + seconds

        def is_over() -> bool:
            return asyncio.get_running_loop().time() > end

        for caller in callers:
            async with caller:
                await caller.read()
        await store.change_feed.read()
        writing = merge_repeatedly(ConfigClient(services[0], token, key, name="w"), until=is_over, pause_seconds=0.05)
        watching = _watch(store.change_feed, seen, services, token=token, key=key)
        observing = asyncio.create_task(watching)
        await writing
        await asyncio.sleep(BOUND_SECONDS + 0.5)
        observing.cancel()
    finally:
        await store.close()
    return seen


async def _watch(news: ChangeFeed, seen: Observation, services: list[Service], *, token: str, key: Key) -> None:
    async with asyncio.TaskGroup() as asking:
        while True:
            try:
                changes = [change for change in await news.read() if change.key == key]
            except DatabaseUnavailable:
                changes = []
            for change in changes:
                seen.changes += 1
                asking.create_task(_check_services(seen, services, token, key=key, version=change.version or 0))
            await news.wait()


async def _check_services(seen: Observation, services: list[Service], token: str, *, key: Key, version: int) -> None:
    await asyncio.sleep(BOUND_SECONDS)
    for service in services:
        async with ConfigClient(service, token, key) as caller:
            reply = await caller.read()
        if reply is not None and reply.status in (200, 404) and reply.header("config-freshness") is None:
            seen.inconsistencies += int(reply.header("config-version") or 0) < version
