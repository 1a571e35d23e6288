"""Accept connections within their limits, on the event loop of a worker."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

import uvloop

from confide.errors import describe_error
from confide.web.connections import Connections, Slot

# A client that says nothing during the TLS handshake, and one that does not answer its end.
MAX_HANDSHAKE_SECONDS = 10.0
# A client that takes nothing of what was written to it. Linux then ends the connection (tcp(7), TCP_USER_TIMEOUT).
MAX_UNTAKEN_SECONDS = 30.0
# At once, so that the workers of a service share a burst.
MAX_ACCEPTED = 16
# After an error, such as too many open files of the machine.
RETRY_SECONDS = 0.5

_log = logging.getLogger("confide")


class Listener(asyncio.AbstractServer):
    """Accepts the connections of one socket. uvicorn takes it for the server of an event loop."""

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        *,
        create_protocol: Callable[[], Any],
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._connections = connections
        self._create_protocol = create_protocol
        self._ssl_context = ssl_context
        self._opening: set[asyncio.Task[None]] = set()
        self._is_serving = False
        self._has_failed = False

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return (self._listener,)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return self._is_serving

    async def start_serving(self) -> None:
        self._is_serving = True
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    async def serve_forever(self) -> None:
        await self.start_serving()
        await self._loop.create_future()

    def close(self) -> None:
        self._is_serving = False
        self._loop.remove_reader(self._listener)
        for task in self._opening:
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTED):
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._has_failed = False
            slot = self._connections.add(peer[0] if isinstance(peer, tuple) else None)
            task = self._loop.create_task(self._open(connection, slot))
            slot.end_handshake = task.cancel
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket, slot: Slot) -> None:
        """Give the connection its protocol, which releases the slot at the end."""
        protocol = self._create_protocol()
        protocol.slot = slot
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(MAX_UNTAKEN_SECONDS * 1_000))
            limits = {} if self._ssl_context is None else {"ssl_handshake_timeout": MAX_HANDSHAKE_SECONDS}
            await self._loop.connect_accepted_socket(lambda: protocol, connection, ssl=self._ssl_context, **limits)
        except OSError:  # a client that left, an invalid handshake, or none in time
            slot.release()
            connection.close()
        except BaseException:
            slot.release()
            connection.close()
            raise

    def _pause(self, error: OSError) -> None:
        if not self._has_failed:
            self._has_failed = True
            _log.error("accept_failed reason=%s", describe_error(error))
        self._loop.remove_reader(self._listener)
        self._loop.call_later(RETRY_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._is_serving:
            self._loop.add_reader(self._listener, self._accept)


class ServingLoop(uvloop.Loop):
    """An event loop whose servers accept connections within limits."""

    def __init__(self, find_connections: Callable[[], Connections]) -> None:
        super().__init__()
        self._find_connections = find_connections

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], Any],
        *args: Any,
        sock: socket.socket | None = None,
        ssl: ssl.SSLContext | None = None,
        backlog: int = 100,
        **more: Any,
    ) -> asyncio.AbstractServer:
        """Serve a bound socket, as uvicorn asks."""
        if sock is None:
            return await super().create_server(protocol_factory, *args, ssl=ssl, backlog=backlog, **more)
        sock.listen(backlog)
        listener = Listener(sock, self._find_connections(), create_protocol=protocol_factory, ssl_context=ssl)
        await listener.start_serving()
        return listener
