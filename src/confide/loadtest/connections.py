"""Connections that each carry one request at a time, opened as they are needed."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import TypeAlias, cast
from urllib.parse import urlsplit

import httptools

CONNECT_SECONDS = 5.0
# What became of a request: its status, or 0 with the name of what was wrong.
Ended: TypeAlias = Callable[[int, str], None]
# Takes a connection, or says that it needs none any more.
Taker: TypeAlias = "Callable[[Connection], bool]"


class Connection(asyncio.Protocol):
    """One connection: says what it is given, and tells how that ended."""

    def __init__(self, pool: Connections) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._ended: Ended | None = None
        self._goes_on = True
        self.transport: asyncio.Transport | None = None

    def send(self, data: bytes, ended: Ended) -> None:
        self._ended = ended
        if self.transport is not None:
            self.transport.write(data)

    def abandon(self, why: str) -> None:
        """Give up the request under way, and the connection with it."""
        self._goes_on = False  # nobody else may have it
        self._end(0, why)
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._pool.forget(self)
        self._end(0, "connection lost" if exc is None else type(exc).__name__)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abandon("no HTTP")

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._goes_on = self._parser.should_keep_alive()
        if not self._goes_on and self.transport is not None:
            self._pool.forget(self)
            self.transport.close()
        self._end(status, "")

    def _end(self, status: int, why: str) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(status, why)
            if self.transport is not None and self._goes_on:
                self._pool.give_back(self)


class Connections:
    """At most so many connections; the one used last is used next. Who finds none waits in line."""

    def __init__(self, url: str, *, most: int) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "localhost"
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._tls = ssl.create_default_context() if self._is_tls else None
        self._most = most
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._opening = 0
        self._is_closed = False
        self._waiting: deque[Taker] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        # Times all of them were in use, so that a request waited here for one.
        self.shortages = 0

    def use(self, taker: Taker) -> None:
        """Call back with a connection, now or as soon as there is one."""
        if self._idle:
            taker(self._idle.pop())
            return
        self._waiting.append(taker)
        self.shortages += len(self._open) + self._opening >= self._most
        self._open_if_needed()

    def give_back(self, connection: Connection) -> None:
        while self._waiting:
            if self._waiting.popleft()(connection):
                return
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._is_closed:
            self._open_if_needed()

    def _open_if_needed(self) -> None:
        while self._opening < len(self._waiting) and len(self._open) + self._opening < self._most:
            self._opening += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        self._is_closed = True
        for connection in list(self._open):
            connection.abandon("the run is over")

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            self._opening -= 1
            self._refuse(type(error).__name__)
        else:
            self._opening -= 1
            self._open.add(connection)
            self.give_back(connection)
        self._open_if_needed()

    def _refuse(self, why: str) -> None:
        """Whoever waits longest hears that no connection came about."""
        nowhere = Connection(self)
        while self._waiting:
            if self._waiting.popleft()(nowhere):
                nowhere.abandon(why)
                return
