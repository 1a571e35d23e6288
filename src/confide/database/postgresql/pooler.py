"""Detect a pooler that shares server sessions between its clients, such as PgBouncer in transaction or statement mode.

Confide relies on its sessions: their settings, prepared statements, LISTEN and advisory locks.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import NamedTuple
from weakref import WeakKeyDictionary

import asyncpg

from confide.database.postgresql.transaction import Connection
from confide.errors import SessionsShared
from confide.postgresql_client.connector import OpenConnection

# How often open connections are checked. An operator can change the mode of a pooler at any time.
CHECK_SECONDS = 0.5
# One round finds sharing if no other client uses the pooler meanwhile.
ROUNDS = 6
FIND_BACKEND = """/* session.find_backend */
    SELECT pid, backend_start FROM pg_stat_get_activity(pg_backend_pid())
"""


class Backend(NamedTuple):
    """A server process. The start distinguishes processes of different servers, and of reused IDs."""

    pid: int
    started_at: dt.datetime


class PoolerCheck:
    """Checks that each connection has a server process of its own.

    A direct connection costs one statement: the process ID of its handshake is that of its server process. A pooler
    completes the handshake before it assigns a process, so it invents the ID.

    Behind a pooler, the check lets two open connections use the server in turn. It is certain when it rejects:
    without sharing, a connection keeps its process, and no other one gets it before it is closed. It can miss sharing
    while other clients keep the pooler busy. Then the process changes soon, and the change feed's check finds it.
    """

    def __init__(self) -> None:
        # The open connections that lead through a pooler.
        self._backends: WeakKeyDictionary[Connection, Backend] = WeakKeyDictionary()
        self._has_probed = False
        self._checked_at = 0.0

    async def check_new(self, connection: Connection, open_another: OpenConnection) -> None:
        """Raise `SessionsShared` if a new connection shares its server process."""
        backend = await find_backend(connection)
        if backend.pid == connection.get_server_pid():
            return
        # Known connections may be dead, so a process that one of them had proves nothing yet.
        if not self._has_probed or backend in self._backends.values():
            await self._probe(connection, backend, open_another)
            self._has_probed = True
        self._backends[connection] = backend

    async def check_open(self, connection: Connection) -> None:
        """Check an open connection again, now and then. Raises `SessionsShared`.

        As long as it keeps its process, its session is complete, even if other clients use it meanwhile.
        """
        backend = self._backends.get(connection)
        if backend is not None and time.monotonic() >= self._checked_at + CHECK_SECONDS:
            self._checked_at = time.monotonic()
            await self._require_backend(connection, backend)

    async def _probe(self, connection: Connection, backend: Backend, open_another: OpenConnection) -> None:
        """Let the connection and another one use the server in turn."""
        other = await open_another()
        try:
            for _ in range(ROUNDS):
                # Twice in a row: a pooler that hands out processes round robin changes it here.
                await self._require_backend(connection, backend)
                await self._require_backend(connection, backend)
                if await find_backend(other) == backend:
                    # The first connection still answers, so it did not release its process by its end.
                    await find_backend(connection)
                    raise self._reject()
        finally:
            other.terminate()

    async def _require_backend(self, connection: Connection, backend: Backend) -> None:
        if await find_backend(connection) != backend:
            raise self._reject()

    def _reject(self) -> SessionsShared:
        self._has_probed = False
        return SessionsShared()


async def find_backend(connection: Connection) -> Backend:
    try:
        (row,) = await connection.fetch(FIND_BACKEND)
    except asyncpg.QueryCanceledError:
        # A short time limit of the role. Lift it for this transaction only: the session may belong to other clients.
        async with connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = 0")
            (row,) = await connection.fetch(FIND_BACKEND)
    return Backend(*row)
