"""Rate limit on failed logins, stored in the database so that all workers share it."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from confide.clock import Clock
from confide.context import current_request
from confide.errors import Busy
from confide.identity.errors import RateLimited
from confide.identity.model import normalize_attempted_login
from confide.keyed_lock import KeyedLock

if TYPE_CHECKING:
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.identity.store import UserStore

MAX_QUEUED = 64


class LoginAttempt:
    """One login attempt. It counts as failed until `record_success`."""

    def __init__(self, users: UserStore, counted: bytes, address: str) -> None:
        self._users = users
        self._counted = counted
        self._address = address

    async def record_success(self) -> None:
        await self._users.clear_attempts(self._counted, self._address)


class LoginThrottle:
    """Counts each attempt before the password is verified, so that a burst cannot exceed the limit."""

    def __init__(self, users: UserStore, encryption: EnvelopeEncryption, clock: Clock) -> None:
        self._users = users
        self._encryption = encryption
        self._clock = clock
        # Attempts for a login queue, so that concurrent correct logins do not count as failures.
        self._locks: KeyedLock[bytes] = KeyedLock(max_queued=MAX_QUEUED)

    @asynccontextmanager
    async def attempt(self, login: str) -> AsyncIterator[LoginAttempt]:
        """Begin an attempt; raises `RateLimited` after too many failures, whether or not the login exists."""
        # Only a MAC is stored, because users sometimes type their password into the login field.
        counted = self._encryption.compute_mac("audit", b"login " + normalize_attempted_login(login).encode())
        address = _client_network(current_request.get().address)
        async with self._locks.acquire(counted):
            wait = await self._users.begin_attempt(counted, address, now=self._clock())
            if wait is not None:
                raise RateLimited(retry_after_seconds=wait)
            try:
                yield LoginAttempt(self._users, counted, address)
            except Busy:
                await self._users.take_back_attempt(counted, address)
                raise


def _client_network(address: str | None) -> str:
    """Return the IPv4 address of a client, or its IPv6 /64 network, which one host usually owns."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "-"
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
