"""HTTP/1.1 connections and their pool. Each connection carries one request at a time."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import TypeAlias, cast
from urllib.parse import urlsplit

import httptools

CONNECT_TIMEOUT_SECONDS = 5.0
# Receives the HTTP status of a response, or 0 with the kind of error.
ResponseCallback: TypeAlias = Callable[[int, str], None]
# Receives a connection. Returns False if it does not need one any more.
AcquireCallback: TypeAlias = "Callable[[Connection], bool]"


class Connection(asyncio.Protocol):
    """One connection of a pool."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._on_response: ResponseCallback | None = None
        self._is_reusable = True
        self.transport: asyncio.Transport | None = None

    def send(self, data: bytes, on_response: ResponseCallback) -> None:
        self._on_response = on_response
        if self.transport is not None:
            self.transport.write(data)

    def abort(self, error_kind: str) -> None:
        """Fail the current request and close the connection: a late response must not answer the next request."""
        self._is_reusable = False
        self._finish(0, error_kind)
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._pool.remove(self)
        self._finish(0, "connection lost" if exc is None else type(exc).__name__)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort("no HTTP")

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._is_reusable = self._parser.should_keep_alive()
        if not self._is_reusable and self.transport is not None:
            self._pool.remove(self)
            self.transport.close()
        self._finish(status, "")

    def _finish(self, status: int, error_kind: str) -> None:
        on_response, self._on_response = self._on_response, None
        if on_response is not None:
            on_response(status, error_kind)
            if self.transport is not None and self._is_reusable:
                self._pool.release(self)


class ConnectionPool:
    """Connections, opened on demand up to a limit and reused last in, first out. Requests queue for a free one."""

    def __init__(self, url: str, *, max_connections: int) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "localhost"
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._tls = ssl.create_default_context() if self._is_tls else None
        self._max_connections = max_connections
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._opening_count = 0
        self._is_closed = False
        self._queue: deque[AcquireCallback] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        # Requests that had to queue because all connections were in use.
        self.shortages = 0

    def acquire(self, on_acquired: AcquireCallback) -> None:
        """Call back with a connection, now or as soon as one is free."""
        if self._idle:
            on_acquired(self._idle.pop())
            return
        self._queue.append(on_acquired)
        self.shortages += len(self._open) + self._opening_count >= self._max_connections
        self._open_if_needed()

    def release(self, connection: Connection) -> None:
        while self._queue:
            if self._queue.popleft()(connection):
                return
        self._idle.append(connection)

    def remove(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._is_closed:
            self._open_if_needed()

    def close(self) -> None:
        self._is_closed = True
        for connection in list(self._open):
            connection.abort("the run is over")

    def _open_if_needed(self) -> None:
        while self._opening_count < len(self._queue) and len(self._open) + self._opening_count < self._max_connections:
            self._opening_count += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            self._opening_count -= 1
            self._fail_oldest(type(error).__name__)
        else:
            self._opening_count -= 1
            self._open.add(connection)
            self.release(connection)
        self._open_if_needed()

    def _fail_oldest(self, error_kind: str) -> None:
        """Fail the oldest queued request, because its connection could not be opened."""
        unconnected = Connection(self)
        while self._queue:
            if self._queue.popleft()(unconnected):
                unconnected.abort(error_kind)
                return
