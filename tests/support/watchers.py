"""Writers and watchers of one log, and what must hold of everything that the watchers were told."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from confide.names import Key
from support import wire
from support.processes import Service
from support.streams import Stream

TYPES = ("crm", "payments")
PATIENCE_SECONDS = 30.0


@dataclass
class WatchEvent:
    """What one watcher heard of one change."""

    position: tuple[int, ...]
    key: Key
    version: int


@dataclass
class Watcher:
    """Watches one scope, is cut again and again, and goes on by the last id that it heard."""

    services: Sequence[Service]
    token: str
    chance: random.Random
    tenant: str
    cuts: int
    told: list[WatchEvent] = field(default_factory=list)
    newest: dict[Key, int] = field(default_factory=dict)
    reconnects: int = 0
    last_id: str | None = None
    gaps: list[str] = field(default_factory=list)

    async def watch(self, begun: str, *, is_done: Callable[[Watcher], bool]) -> None:
        """Watch from a position until everything was heard."""
        self.last_id = begun
        while not is_done(self):
            try:
                await self._watch_once(is_done)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                await asyncio.sleep(0.05)
            self.reconnects += 1

    async def _watch_once(self, is_done: Callable[[Watcher], bool]) -> None:
        service = self.chance.choice(self.services)
        left = self.chance.randrange(1, 400) if self.cuts > self.reconnects else 10**9
        async with Stream(service.port, self.token, last_id=self.last_id, params={"tenant": self.tenant}) as stream:
            if stream.status != 200:
                raise ConnectionError(stream.status)
            blocks = stream.blocks()
            while left > 0 and not is_done(self):
                async with asyncio.timeout(5):
                    block = await anext(blocks, None)
                if block is None:
                    return
                left -= 1
                self.last_id = block.id or self.last_id
                if block.event in ("saved", "retired"):
                    data = block.data
                    key = Key(data["tenant"], data["integration_type"])
                    self.told.append(WatchEvent(_order(block.id or ""), key, data["version"]))
                    self.newest[key] = data["version"]


def _order(position: str) -> tuple[int, ...]:
    return tuple(int(part) for part in position.split(".")[1:])


def find_violations(watchers: Sequence[Watcher], saved: dict[Key, int]) -> list[str]:
    """What was told out of order, twice, not at all, or to the wrong one; `saved` are the versions there are."""
    found = []
    for number, watcher in enumerate(watchers):
        heard: dict[Key, list[int]] = defaultdict(list)
        last: tuple[int, ...] = ()
        for told in watcher.told:
            if told.position <= last:
                found.append(f"{number}: {told.position} after {last}")
            last = told.position
            heard[told.key].append(told.version)
            if watcher.tenant not in ("*", told.key.tenant):
                found.append(f"{number}: heard of {told.key}")
        for key, count_versions in saved.items():
            wanted = list(range(1, count_versions + 1)) if watcher.tenant in ("*", key.tenant) else []
            if heard[key] != wanted:
                missing = sorted(set(wanted) - set(heard[key]))[:5]
                found.append(f"{number}: of {key} {len(heard[key])} told, {len(wanted)} saved, missing {missing}")
    whole = [[(told.position, told.key, told.version) for told in one.told] for one in watchers if one.tenant == "*"]
    if any(one != whole[0] for one in whole):
        found.append("two watchers of everything heard another order")
    return found


async def write_versions(service: Service, token: str, key: Key, *, until: Callable[[], bool]) -> int:
    """Save one version after the other on one connection; returns how many were answered."""
    answered, streams = 0, None
    tried = 0
    while not until():
        tried += 1
        document = {"tenant": key.tenant, "integration_type": key.integration_type, "configuration": {"n": tried}}
        headers = [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]
        data = wire.request("POST", "/config", headers, json.dumps(document).encode(), closes=False)
        try:
            async with asyncio.timeout(5):
                streams = streams or await asyncio.open_connection("127.0.0.1", service.port)
                streams[1].write(data)
                head = await streams[0].readuntil(b"\r\n\r\n")
                size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-l"))
                await streams[0].readexactly(size)
                answered += head.startswith(b"HTTP/1.1 200")
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            if streams is not None:
                streams[1].transport.abort()
            streams = None
            await asyncio.sleep(0.05)
    if streams is not None:
        streams[1].transport.abort()
    await asyncio.sleep(0.05)
    return answered


async def hold_transactions_open(database: str, key: Key, *, until: Callable[[], bool]) -> None:
    """A save that takes its time: its transaction begins before others that are committed sooner."""
    connection = await asyncpg.connect(database)
    version = 0
    try:
        while not until():
            version += 1
            async with connection.transaction():
                await connection.execute(
                    "INSERT INTO changes (kind, tenant, integration_type, version, saved_by, saved_at)"
                    " VALUES ('retired', $1, $2, $3, 1, 1)",
                    *key,
                    version,
                )
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def count_versions(service: Service, token: str, keys: Sequence[Key]) -> dict[Key, int]:
    """How many versions each key has."""
    found = {}
    async with service.async_client(token) as client:
        for key in keys:
            params: Any = {"tenant": key.tenant, "integration_type": key.integration_type, "limit": "1"}
            answer = (await client.get("/config/versions", params=params)).json()
            found[key] = answer["versions"][0]["version"] if "versions" in answer else 0
    return found
