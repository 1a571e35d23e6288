"""Connect to the first host of an address that answers and suits. No silent host delays the others.

Attempts overlap as in RFC 8305 (Happy Eyeballs), section 5, up to the end of the session's set-up: a host can accept
a connection and never answer. A silent host is tried again in between, because a path that is back does not revive
an attempt whose packets were lost.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from confide.errors import describe_error
from confide.postgresql_client.address import Host, TcpOptions, parse_address

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
# Opens another connection to the same server.
OpenConnection: TypeAlias = Callable[[], Coroutine[Any, Any, Connection]]
SetUp: TypeAlias = Callable[[Connection, OpenConnection], Awaitable[None]]

# The connection attempt delay of RFC 8305.
NEXT_HOST_SECONDS = 0.25
# When a silent host gets another attempt, and how many attempts to it may be open.
AGAIN_SECONDS = 0.5
MAX_ROUNDS = 3


class ConnectFailed(Exception):
    """No host could be used. `errors` has an error for each address that was tried."""

    def __init__(self, errors: Sequence[tuple[str, Exception]]) -> None:
        if len(errors) == 1:
            super().__init__(describe_error(errors[0][1]))
        else:
            super().__init__("; ".join(f"{label}: {describe_error(error)}" for label, error in errors))
        self.errors = [error for _, error in errors]


class _Candidate(NamedTuple):
    """Something to connect to."""

    label: str
    connect: OpenConnection


class Connector:
    """Opens connections to one address. The host of the last connection is tried first."""

    def __init__(
        self,
        url: str,
        *,
        set_up: SetUp,
        measure: Callable[[Awaitable[Connection]], Awaitable[Connection]] | None = None,
        connect_seconds: float | None = None,
    ) -> None:
        """`set_up` rejects a connection by an error. Each attempt, with its set-up, may take `connect_seconds`.

        Raises `ValueError` for an invalid URL.
        """
        self._address = parse_address(url)
        self._set_up = set_up
        self._measure = measure
        self._seconds = connect_seconds or self._address.connect_seconds
        self._last_host: Host | None = None

    async def connect(self) -> Connection:
        """Open and set up a connection. Raises `ConnectFailed`."""
        if not self._address.hosts:
            return await _race(
                [_Candidate("localhost", partial(self._attempt, self._open_by_driver))], pause_seconds=AGAIN_SECONDS
            )
        return await _race(
            [_Candidate(str(host), partial(self._connect_host, host)) for host in self._order_hosts()],
            pause_seconds=NEXT_HOST_SECONDS,
            rounds=1,
        )

    def _order_hosts(self) -> list[Host]:
        hosts = list(self._address.hosts)
        if self._address.is_load_balanced:
            random.shuffle(hosts)
        elif self._last_host is not None:
            hosts.sort(key=lambda host: host != self._last_host)
        return hosts

    async def _connect_host(self, host: Host) -> Connection:
        """Connect to any address of a host. A name can have several."""
        if host.is_socket:
            by_label = {str(host): partial(self._open_by_driver, host=host)}
        else:
            async with asyncio.timeout(self._seconds):
                targets = await _resolve(host)
            by_label = {
                str(Host(target.sockaddr[0], host.port)): partial(self._open_target, host, target) for target in targets
            }
        connection = await _race(
            [_Candidate(label, partial(self._attempt, open_one)) for label, open_one in by_label.items()],
            pause_seconds=NEXT_HOST_SECONDS if len(by_label) > 1 else AGAIN_SECONDS,
        )
        self._last_host = host
        return connection

    async def _attempt(self, open_connection: OpenConnection) -> Connection:
        try:
            async with asyncio.timeout(self._seconds):
                opening = open_connection()
                connection = await (opening if self._measure is None else self._measure(opening))
                try:
                    await self._set_up(connection, open_connection)
                except BaseException:
                    connection.terminate()
                    raise
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._seconds:g} s") from None
        return connection

    async def _open_by_driver(self, host: Host | None = None) -> Connection:
        where: Any = {} if host is None else {"host": host.name, "port": host.port}
        return await asyncpg.connect(self._address.url, **where, timeout=self._seconds)

    async def _open_target(self, host: Host, target: _Target) -> Connection:
        # The driver gets the name, because it checks the certificate and finds the password by the name.
        loop: Any = _TargetLoop(asyncio.get_running_loop(), target, self._address.tcp)
        url, name, port = self._address.url, host.name, host.port
        return await asyncpg.connect(url, host=name, port=port, loop=loop, timeout=self._seconds)


class _Target(NamedTuple):
    """One address of a host, as the socket module names it."""

    family: int
    sockaddr: Any


async def _resolve(host: Host) -> list[_Target]:
    """Return the addresses of a host, without duplicates, in the order of the system (RFC 6724)."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"{error.strerror}: {host.name}") from error
    return list(dict.fromkeys(_Target(family, sockaddr) for family, _, _, _, sockaddr in found))


class _TargetLoop:
    """The event loop, except that every TCP connection leads to one target, with its socket options.

    The driver takes a loop, but neither a socket nor one of several addresses of a name.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, target: _Target, tcp: TcpOptions) -> None:
        self._loop = loop
        self._target = target
        self._tcp = tcp

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._loop, name)
        # The driver uses the loop in every query. The next time, this attribute is found without `__getattr__`.
        setattr(self, name, value)
        return value

    async def create_connection(
        self, protocol_factory: Any, host: str, _port: int, *, ssl: ssl.SSLContext | None = None
    ) -> Any:
        sock = socket.socket(self._target.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            _set_options(sock, self._tcp)
            await self._loop.sock_connect(sock, self._target.sockaddr)
            server_hostname = None if ssl is None else host
            return await self._loop.create_connection(
                protocol_factory, sock=sock, ssl=ssl, server_hostname=server_hostname
            )
        except BaseException:
            sock.close()
            raise


def _set_options(sock: socket.socket, tcp: TcpOptions) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    values = {"TCP_USER_TIMEOUT": tcp.user_timeout_milliseconds}
    if tcp.has_keepalives:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        values |= {
            "TCP_KEEPIDLE": tcp.idle_seconds,
            "TCP_KEEPINTVL": tcp.interval_seconds,
            "TCP_KEEPCNT": tcp.max_probes,
        }
    for name, value in values.items():
        # Not every system has every option.
        if value and (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def _race(candidates: Sequence[_Candidate], *, pause_seconds: float, rounds: int = MAX_ROUNDS) -> Connection:
    """Start attempts one after another, without waiting for the end of each. Return the first connection.

    The next attempt starts after a pause, or when one fails. After the last candidate the silent ones get another
    attempt. Raises `ConnectFailed` once each candidate has failed.
    """
    waiting = deque(candidate for _ in range(rounds) for candidate in candidates)
    running: dict[asyncio.Task[Connection], _Candidate] = {}
    errors: dict[_Candidate, Exception] = {}
    try:
        while len(errors) < len(candidates):
            while waiting and waiting[0] in errors:
                waiting.popleft()
            if waiting:
                running[asyncio.create_task(waiting[0].connect())] = waiting[0]
                waiting.popleft()
            done, _ = await asyncio.wait(
                running, timeout=pause_seconds if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in [task for task in running if task in done]:
                candidate = running.pop(task)
                try:
                    return task.result()
                except Exception as error:  # noqa: BLE001 - the caller gets every error
                    errors.setdefault(candidate, error)
    finally:
        for task in running:
            task.add_done_callback(_close_unused)
            task.cancel()
    raise ConnectFailed(_flatten(errors))


def _close_unused(task: asyncio.Task[Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


def _flatten(errors: Mapping[_Candidate, Exception]) -> list[tuple[str, Exception]]:
    """Replace the failure of a host by the errors of its addresses."""
    found: list[tuple[str, Exception]] = []
    for candidate, error in errors.items():
        if isinstance(error, ConnectFailed):
            found += [(candidate.label, each) for each in error.errors]
        else:
            found.append((candidate.label, error))
    return found
