"""A cluster of services that share one database, and clients that read and save repeatedly."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confide.names import ConfigKey
from support import raw_http
from support.linearizability import UNKNOWN, Operation
from support.processes import FAULTY_SERVICE, Service
from support.raw_http import Reply

# Longer than any response may take, also on a busy machine.
RESPONSE_SECONDS = 60.0
RECONNECT_SECONDS = 0.05


@asynccontextmanager
async def run_cluster(
    folder: Path, count: int, *, database: str | None = None, databases: list[str] | None = None, fault: str = ""
) -> AsyncIterator[list[Service]]:
    """Start services that share a data folder and a database; `databases` gives each its own URL of it."""
    program = FAULTY_SERVICE if fault else ("-m", "confide")
    env = {"FAULT": fault, "PYTHONPATH": str(Path(__file__).parents[1])}
    services: list[Service] = []
    try:
        for number in range(count):
            url = databases[number] if databases else database
            data = folder / "data"
            service = Service(folder / str(number), "--data", str(data), database=url, program=program, env=env)
            services.append(service)
            await asyncio.to_thread(service.start)
        yield services
    finally:
        for service in services:
            service.end()


class ConfigClient:
    """A client of one key at one service. It keeps one connection and reconnects after an error."""

    def __init__(self, service: Service, token: str, key: ConfigKey, *, name: str = "") -> None:
        self.name = name
        self.operations: list[Operation] = []
        self._connection = raw_http.KeepAliveConnection(service.port)
        self._token = token
        self._key = key

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.disconnect()

    @property
    def is_waiting(self) -> bool:
        return self._connection.is_waiting

    async def read(self, *headers: tuple[str, str]) -> Reply | None:
        """Read the config. None means no response."""
        path = f"/config?tenant={self._key.tenant}&integration_type={self._key.integration_type}"
        bearer = ("Authorization", f"Bearer {self._token}")
        return await self._send(raw_http.build_request("GET", path, [bearer, *headers], closes=False))

    async def merge(self, marker: str, value: int = 1) -> Reply | None:
        """Merge `{marker: value}` into the config. None means no response."""
        tenant, type_ = self._key
        document = {"tenant": tenant, "integration_type": type_, "configuration": {marker: value}}
        headers = [("Authorization", f"Bearer {self._token}"), ("Content-Type", "application/json")]
        return await self._send(
            raw_http.build_request("POST", "/config", headers, json.dumps(document).encode(), closes=False)
        )

    async def _send(self, data: bytes) -> Reply | None:
        reply = await self._connection.send(data, max_seconds=RESPONSE_SECONDS)
        if reply is None:
            await asyncio.sleep(RECONNECT_SECONDS)
        return reply


async def read_repeatedly(
    client: ConfigClient,
    *,
    until: Callable[[], bool],
    kind: str = "read",
    sends_min_version: bool = False,
    pause_seconds: float = 0.0,
) -> list[Operation]:
    """Read until `until` returns True. Leave out responses that are marked stale or are errors."""
    known_version = 0
    async with client:
        while not until():
            headers = [("Cache-Control", "no-cache")] if kind == "fresh" else []
            headers += [("Config-Min-Version", str(known_version))] if sends_min_version and known_version else []
            call = time.monotonic()
            reply = await client.read(*headers)
            if reply is not None and reply.status in (200, 404) and reply.header("config-freshness") is None:
                version = int(reply.header("config-version") or 0)
                seen = frozenset(reply.json()["configuration"]) if version else frozenset()
                client.operations.append(Operation(client.name, kind, call, time.monotonic(), version, seen=seen))
                known_version = max(known_version, version)
            await asyncio.sleep(pause_seconds)
    return client.operations


async def merge_repeatedly(client: ConfigClient, *, until: Callable[[], bool], pause_seconds: float) -> list[Operation]:
    """Merge unique markers until `until` returns True. A merge without a response may have been applied."""
    number = 0
    async with client:
        while not until():
            marker = f"{client.name}-{number}"
            number += 1
            call = time.monotonic()
            reply = await client.merge(marker)
            is_saved = reply is not None and reply.status == 200
            version: Any = reply.json()["version"] if reply is not None and is_saved else None
            end = time.monotonic() if is_saved else UNKNOWN
            client.operations.append(Operation(client.name, "write", call, end, version, marker))
            await asyncio.sleep(pause_seconds)
    return client.operations
