"""A constant load on a service during a failover: saves, reads, watchers, revocations, health checks and a probe.

Each part records what it sends and receives. `support.failover_checks` compares the records with the database.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import asyncpg

from confide.names import ConfigKey
from support.processes import Service
from support.raw_http import KeepAliveConnection, Reply, build_request
from support.streams import Stream
from support.waiting import wait_until_async

TYPE = "failover"
BUSY_KEYS = tuple(ConfigKey("acme", f"{TYPE}-{number}") for number in range(3))
QUIET_KEYS = tuple(ConfigKey(f"tenant-{number}", TYPE) for number in range(20))
# Two writers share the first key.
WRITER_KEYS = (*BUSY_KEYS, BUSY_KEYS[0])
READERS = 4
# One watcher resumes at once. The other one stays away while the service saves again.
RESUME_PAUSES_SECONDS = (0.1, 4.0)
# So many connections reach every worker.
CONNECTIONS = 40
PAUSE_SECONDS = 0.1
READ_PAUSE_SECONDS = 0.02
# A reader reconnects after so many reads, because a connection stays at one worker.
READS_PER_CONNECTION = 25
# Longer than any response may take, also on a busy machine.
RESPONSE_SECONDS = 20.0
PROBE_SECONDS = 3.0
# A probe that waits keeps a connection of the server. More of them would use up the connections of the service.
MAX_PENDING_PROBES = 6
HEALTH_PAUSE_SECONDS = 0.25
REVOCATION_PAUSE_SECONDS = 1.0
# Revocations reach every process within this time.
REVOKED_AFTER_SECONDS = 1.0
# A stream has a heartbeat every 15 s.
SILENCE_SECONDS = 40.0
CHANGES = ("saved", "retired")
HTTP_OK, GONE = 200, 410


@dataclass(frozen=True)
class SaveRecord:
    """One save of a unique value. Status 0 means no response; a save without a 200 may still be stored."""

    key: ConfigKey
    value: str
    start: float
    end: float
    status: int
    version: int | None


@dataclass(frozen=True)
class ReadRecord:
    """One read. `is_cached` is False if the request required a read of the database."""

    key: ConfigKey
    start: float
    end: float
    status: int
    version: int
    value: str | None
    is_stale: bool
    is_cached: bool = True


@dataclass(frozen=True)
class HealthRecord:
    """One health check of one worker."""

    at: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class RevokedTokenRecord:
    """A read with a token more than a second after the response to its revocation."""

    revoked_at: float
    start: float
    status: int
    is_stale: bool


@dataclass(frozen=True)
class ReceivedChange:
    """One change as a watcher received it."""

    position: tuple[int, ...]
    key: ConfigKey
    version: int


@dataclass
class WatchSegment:
    """What a watcher received from a start position until its position was gone (410) and it started again."""

    start_id: str
    last_id: str
    received: list[ReceivedChange] = field(default_factory=list)
    is_gone: bool = False


@dataclass
class FailoverRecord:
    """Everything that the load sent and received."""

    saves: list[SaveRecord] = field(default_factory=list)
    reads: list[ReadRecord] = field(default_factory=list)
    # When new connections of the probe committed a row.
    probes: list[float] = field(default_factory=list)
    health: list[HealthRecord] = field(default_factory=list)
    revoked: list[RevokedTokenRecord] = field(default_factory=list)
    watchers: list[list[WatchSegment]] = field(default_factory=list)
    # When the load was stopped, on the monotonic clock. What had not returned by then is interrupted until then.
    ended_at: float = 0.0
    # Statuses of all requests that are not in the lists above.
    other: Counter[int] = field(default_factory=Counter)

    def count_saved(self, *, since: float = 0.0) -> int:
        return sum(one.version is not None and one.start > since for one in self.saves)


class FailoverLoad:
    """The load on one service. `probe_urls` are URLs of a database with the table `probe`, one for each host."""

    def __init__(self, service: Service, token: str, probe_urls: Sequence[str]) -> None:
        self.record = FailoverRecord()
        self._service = service
        self._token = token
        self._probe_urls = probe_urls
        self._tasks: list[asyncio.Task[None]] = []
        self._watching: list[asyncio.Task[None]] = []
        self._is_over = False
        self._is_watching = True
        self._values = count()

    async def start(self) -> None:
        """Save all configs, read them at every worker, and start the load."""
        await self.read_everywhere()
        for seconds in RESUME_PAUSES_SECONDS:
            segments: list[WatchSegment] = []
            self.record.watchers.append(segments)
            self._watching.append(asyncio.create_task(self._watch(segments, pause_seconds=seconds)))
        await wait_until_async(lambda: all(self.record.watchers), "the watchers are connected")
        parts: list[Coroutine[Any, Any, None]] = [self._write(key) for key in WRITER_KEYS]
        parts += [self._read() for _ in range(READERS)]
        parts += [self._read_from_database(), self._check_health(), self._revoke_tokens()]
        parts += [self._probe(url) for url in self._probe_urls]
        self._tasks = [asyncio.create_task(part) for part in parts]
        await wait_until_async(lambda: self.record.count_saved() > 20 and len(self.record.probes) > 5, "the load runs")

    async def stop(self) -> None:
        """Stop everything except the watchers."""
        self._is_over = True
        self.record.ended_at = time.monotonic()
        await asyncio.gather(*self._tasks)

    async def stop_watchers(self) -> None:
        self._is_watching = False
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)

    async def prepare(self) -> None:
        """Save every config once. All versions keep their configuration."""
        connection = KeepAliveConnection(self._service.port)
        for type_ in {key.integration_type for key in (*BUSY_KEYS, *QUIET_KEYS)}:
            body = {"schema": None, "keep": 100_000}
            reply = await self._send(connection, "PUT", f"/integration-types/{type_}", body=body)
            assert reply is not None
            assert reply.status == HTTP_OK, reply.body
        for key in (*BUSY_KEYS, *QUIET_KEYS):
            reply = await self._save(connection, key, self._build_value())
            assert reply is not None
            assert reply.status == HTTP_OK, reply.body
        connection.disconnect()

    async def read_everywhere(self) -> None:
        """Read each config at every worker, so that all of them have it in the cache.

        Twice, because a worker that receives the save of a config while it reads the config does not cache it.
        """
        connections = [KeepAliveConnection(self._service.port) for _ in range(CONNECTIONS)]
        for key in (*BUSY_KEYS, *QUIET_KEYS) * 2:
            replies = await asyncio.gather(*(self._send(one, "GET", _build_path(key)) for one in connections))
            assert all(reply is not None and reply.status == HTTP_OK for reply in replies), key
        for one in connections:
            one.disconnect()

    def _build_value(self) -> str:
        return f"{time.monotonic_ns()}-{next(self._values)}"

    async def _save(self, connection: KeepAliveConnection, key: ConfigKey, value: str) -> Reply | None:
        body = {"tenant": key.tenant, "integration_type": key.integration_type, "configuration": {"value": value}}
        return await self._send(connection, "POST", "/config", body=body)

    async def _write(self, key: ConfigKey) -> None:
        connection = KeepAliveConnection(self._service.port)
        while not self._is_over:
            value, start = self._build_value(), time.monotonic()
            reply = await self._save(connection, key, value)
            status = 0 if reply is None else reply.status
            version = reply.json()["version"] if reply is not None and status == HTTP_OK else None
            self.record.saves.append(SaveRecord(key, value, start, time.monotonic(), status, version))
            await asyncio.sleep(PAUSE_SECONDS)
        connection.disconnect()

    async def _read(self) -> None:
        """Read all configs in random order, as a worker of a customer does."""
        connection = KeepAliveConnection(self._service.port)
        while not self._is_over:
            for _ in range(READS_PER_CONNECTION):
                # Half of the reads are of the configs that change.
                key = random.choice(random.choice((BUSY_KEYS, QUIET_KEYS)))
                self.record.reads.append(await self._read_once(connection, key))
                await asyncio.sleep(READ_PAUSE_SECONDS)
            connection.disconnect()

    async def _read_from_database(self) -> None:
        connection = KeepAliveConnection(self._service.port)
        while not self._is_over:
            key = random.choice(BUSY_KEYS)
            self.record.reads.append(await self._read_once(connection, key, is_cached=False))
            await asyncio.sleep(PAUSE_SECONDS)
        connection.disconnect()

    async def _read_once(
        self, connection: KeepAliveConnection, key: ConfigKey, *, is_cached: bool = True
    ) -> ReadRecord:
        headers = [] if is_cached else [("Cache-Control", "no-cache")]
        start = time.monotonic()
        reply = await self._send(connection, "GET", _build_path(key), headers=headers)
        end = time.monotonic()
        if reply is None or reply.status != HTTP_OK:
            status = 0 if reply is None else reply.status
            return ReadRecord(key, start, end, status, 0, None, is_stale=False, is_cached=is_cached)
        version = int(reply.header("config-version") or 0)
        is_stale = reply.header("config-freshness") is not None
        value = reply.json()["configuration"]["value"]
        return ReadRecord(key, start, end, HTTP_OK, version, value, is_stale=is_stale, is_cached=is_cached)

    async def _check_health(self) -> None:
        """Check on a new connection each time, so that every worker is checked."""
        while not self._is_over:
            connection = KeepAliveConnection(self._service.port)
            reply = await self._send(connection, "GET", "/health/ready")
            connection.disconnect()
            reasons = ("no-response",) if reply is None else tuple(reply.json()["reasons"])
            self.record.health.append(HealthRecord(time.monotonic(), reasons))
            await asyncio.sleep(HEALTH_PAUSE_SECONDS)

    async def _revoke_tokens(self) -> None:
        """Create, use and revoke tokens, and try them again a second later at every worker."""
        async with asyncio.TaskGroup() as checks:
            connection = KeepAliveConnection(self._service.port)
            while not self._is_over:
                reply = await self._send(connection, "POST", "/tokens", body={"label": "short-lived"})
                self._count(reply)
                if reply is not None and reply.status == HTTP_OK:
                    token = reply.json()
                    await self._use_token(token["token"], times=4)
                    reply = await self._send(connection, "DELETE", f"/tokens/{token['id']}")
                    self._count(reply)
                    if reply is not None and reply.status == HTTP_OK:
                        checks.create_task(self._check_revoked_token(token["token"], time.monotonic()))
                await asyncio.sleep(REVOCATION_PAUSE_SECONDS)
            connection.disconnect()

    async def _check_revoked_token(self, token: str, revoked_at: float) -> None:
        for _ in range(3):
            await asyncio.sleep(REVOKED_AFTER_SECONDS)
            for start, reply in await self._use_token(token, times=4):
                status = 0 if reply is None else reply.status
                is_stale = reply is not None and reply.header("config-freshness") is not None
                self.record.revoked.append(RevokedTokenRecord(revoked_at, start, status, is_stale))

    async def _use_token(self, token: str, *, times: int) -> list[tuple[float, Reply | None]]:
        """Read with a token on several new connections, to reach every worker."""
        found = []
        for _ in range(times):
            connection = KeepAliveConnection(self._service.port)
            start = time.monotonic()
            found.append((start, await self._send(connection, "GET", _build_path(QUIET_KEYS[0]), token=token)))
            connection.disconnect()
        return found

    def _count(self, reply: Reply | None) -> None:
        self.record.other[0 if reply is None else reply.status] += 1

    async def _probe(self, url: str) -> None:
        """Connect to one host again and again, without waiting for earlier connections."""
        pending: set[asyncio.Task[None]] = set()
        while not self._is_over:
            if len(pending) < MAX_PENDING_PROBES:
                task = asyncio.create_task(self._probe_once(url))
                pending.add(task)
                task.add_done_callback(pending.discard)
            await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.gather(*pending)

    async def _probe_once(self, url: str) -> None:
        connection = None
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                connection = await asyncpg.connect(url, statement_cache_size=0)
                # A replica rejects it. A leader that was replaced waits in vain for its synchronous replica.
                await connection.execute("INSERT INTO probe VALUES (1)")
                self.record.probes.append(time.monotonic())
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return
        finally:
            if connection is not None:
                connection.terminate()

    async def _watch(self, segments: list[WatchSegment], *, pause_seconds: float) -> None:
        """Watch all changes. Resume after the last received ID; start again if it is gone."""
        while self._is_watching:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await self._watch_once(segments)
            await asyncio.sleep(pause_seconds)

    async def _watch_once(self, segments: list[WatchSegment]) -> None:
        segment = segments[-1] if segments and not segments[-1].is_gone else None
        last_id = None if segment is None else segment.last_id
        async with asyncio.timeout(RESPONSE_SECONDS) as limit:
            stream = Stream(self._service.port, self._token, {"integration_type": f"{TYPE}*"}, last_id=last_id)
            async with stream:
                if stream.status == GONE and segment is not None:
                    segment.is_gone = True
                if stream.status != HTTP_OK:
                    self.record.other[stream.status] += 1
                    return
                async for block in stream.read_blocks():
                    limit.reschedule(asyncio.get_running_loop().time() + SILENCE_SECONDS)
                    if block.id is None:
                        continue
                    if segment is None:
                        segment = WatchSegment(block.id, block.id)
                        segments.append(segment)
                    segment.last_id = block.id
                    if block.event in CHANGES:
                        key = ConfigKey(block.data["tenant"], block.data["integration_type"])
                        change = ReceivedChange(parse_position(block.id), key, block.data["version"])
                        segment.received.append(change)

    async def _send(
        self,
        connection: KeepAliveConnection,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Sequence[tuple[str, str]] = (),
        token: str | None = None,
    ) -> Reply | None:
        sent = [("Authorization", f"Bearer {token or self._token}"), *headers]
        sent += [] if body is None else [("Content-Type", "application/json")]
        data = None if body is None else json.dumps(body).encode()
        return await connection.send(
            build_request(method, path, sent, data, closes=False), max_seconds=RESPONSE_SECONDS
        )


def _build_path(key: ConfigKey) -> str:
    return f"/config?tenant={key.tenant}&integration_type={key.integration_type}"


def parse_position(text: str) -> tuple[int, ...]:
    """Parse `<epoch>.<xid>.<id>` and leave out the epoch."""
    return tuple(int(part) for part in text.split(".")[1:])
