"""Writers and watchers of one change log, and a check of everything that the watchers received."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from confide.names import ConfigKey
from support import raw_http
from support.processes import Service
from support.streams import Stream

TYPES = ("crm", "payments")
# Longer than any response or heartbeat may take, also on a busy machine.
RESPONSE_SECONDS = 60.0


@dataclass
class WatchEvent:
    """One change as a watcher received it."""

    position: tuple[int, ...]
    key: ConfigKey
    version: int


@dataclass
class Watcher:
    """A client that watches one scope, disconnects at random and resumes after the last received ID."""

    services: Sequence[Service]
    token: str
    chance: random.Random
    tenant: str
    disconnects: int
    received: list[WatchEvent] = field(default_factory=list)
    newest: dict[ConfigKey, int] = field(default_factory=dict)
    reconnects: int = 0
    last_id: str | None = None

    async def watch(self, position: str, *, is_done: Callable[[Watcher], bool]) -> None:
        """Watch from a position until `is_done`."""
        self.last_id = position
        while not is_done(self):
            try:
                await self._watch_once(is_done)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                await asyncio.sleep(0.05)
            self.reconnects += 1

    async def _watch_once(self, is_done: Callable[[Watcher], bool]) -> None:
        service = self.chance.choice(self.services)
        blocks_left = self.chance.randrange(1, 100) if self.disconnects > self.reconnects else 10**9
        async with Stream(service.port, self.token, last_id=self.last_id, params={"tenant": self.tenant}) as stream:
            if stream.status != 200:
                raise ConnectionError(stream.status)
            blocks = stream.read_blocks()
            while blocks_left > 0 and not is_done(self):
                async with asyncio.timeout(RESPONSE_SECONDS):
                    block = await anext(blocks, None)
                if block is None:
                    return
                blocks_left -= 1
                self.last_id = block.id or self.last_id
                if block.event in ("saved", "retired"):
                    data = block.data
                    key = ConfigKey(data["tenant"], data["integration_type"])
                    self.received.append(WatchEvent(_parse_position(block.id or ""), key, data["version"]))
                    self.newest[key] = data["version"]


def _parse_position(position: str) -> tuple[int, ...]:
    return tuple(int(part) for part in position.split(".")[1:])


def find_violations(watchers: Sequence[Watcher], saved: dict[ConfigKey, int]) -> list[str]:
    """Find events that are out of order, duplicated, missing or out of scope. `saved` counts the versions."""
    found = []
    for number, watcher in enumerate(watchers):
        received: dict[ConfigKey, list[int]] = defaultdict(list)
        last: tuple[int, ...] = ()
        for event in watcher.received:
            if event.position <= last:
                found.append(f"{number}: {event.position} after {last}")
            last = event.position
            received[event.key].append(event.version)
            if watcher.tenant not in ("*", event.key.tenant):
                found.append(f"{number}: received {event.key}, which is out of scope")
        for key, count_versions in saved.items():
            expected = list(range(1, count_versions + 1)) if watcher.tenant in ("*", key.tenant) else []
            if received[key] != expected:
                missing = sorted(set(expected) - set(received[key]))[:5]
                found.append(
                    f"{number}: received {len(received[key])} of {len(expected)} versions of {key}, missing {missing}"
                )
    whole = [
        [(event.position, event.key, event.version) for event in one.received] for one in watchers if one.tenant == "*"
    ]
    if any(one != whole[0] for one in whole):
        found.append("two watchers of all tenants received different orders")
    return found


async def write_versions(service: Service, token: str, key: ConfigKey, *, until: Callable[[], bool]) -> int:
    """Save one version after another on one connection. Return the number of 200 responses."""
    answered, streams = 0, None
    attempts = 0
    while not until():
        attempts += 1
        document = {"tenant": key.tenant, "integration_type": key.integration_type, "configuration": {"n": attempts}}
        headers = [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]
        data = raw_http.build_request("POST", "/config", headers, json.dumps(document).encode(), closes=False)
        try:
            async with asyncio.timeout(RESPONSE_SECONDS):
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
    return answered


async def hold_transactions_open(database: str, key: ConfigKey, *, until: Callable[[], bool]) -> None:
    """Insert versions in slow transactions, which start before others and commit after them."""
    connection = await asyncpg.connect(database)
    version = 0
    try:
        while not until():
            version += 1
            async with connection.transaction():
                await connection.execute(
                    """INSERT INTO changes (kind, tenant, integration_type, version, saved_by, saved_at)
                    VALUES ('retired', $1, $2, $3, 1, 1)""",
                    *key,
                    version,
                )
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def count_versions(service: Service, token: str, keys: Sequence[ConfigKey]) -> dict[ConfigKey, int]:
    """Count the versions of each key."""
    found = {}
    async with service.async_client(token) as client:
        for key in keys:
            params: Any = {"tenant": key.tenant, "integration_type": key.integration_type, "limit": "1"}
            answer = (await client.get("/config/versions", params=params)).json()
            found[key] = answer["versions"][0]["version"] if "versions" in answer else 0
    return found
