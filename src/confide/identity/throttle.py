"""The limit on guessed passwords, kept in the store so that every worker knows it."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from confide.clock import Clock
from confide.context import caller
from confide.errors import Busy
from confide.identity.errors import RateLimited
from confide.identity.model import normalize_attempted_login
from confide.keyed_lock import KeyedLock

if TYPE_CHECKING:
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.identity.store import UserStore

MAX_QUEUED = 64


class LoginAttempt:
    """One try at a password; counted as failed until it is said to be right."""

    def __init__(self, users: UserStore, counted: bytes, address: str) -> None:
        self._users = users
        self._counted = counted
        self._address = address

    async def was_right(self) -> None:
        await self._users.clear_attempts(self._counted, self._address)


class LoginThrottle:
    """Counts each try before the password is looked at, so that a burst cannot outrun the count."""

    def __init__(self, users: UserStore, sealer: EnvelopeEncryption, clock: Clock) -> None:
        self._users = users
        self._sealer = sealer
        self._clock = clock
        # In line, so that somebody who logs in many times at once is not taken for a guesser.
        self._locks: KeyedLock[bytes] = KeyedLock(max_queued=MAX_QUEUED)

    @asynccontextmanager
    async def of(self, login: str) -> AsyncIterator[LoginAttempt]:
        """Raises `RateLimited` if too many tries for this login failed; the same for logins of nobody."""
        # Only a MAC is kept: people type passwords where a login belongs.
        counted = self._sealer.mac("audit", b"login " + normalize_attempted_login(login).encode())
        address = _network(caller.get().address)
        async with self._locks.of(counted):
            wait = await self._users.begin_attempt(counted, address, now=self._clock())
            if wait is not None:
                raise RateLimited(retry_after_seconds=wait)
            try:
                yield LoginAttempt(self._users, counted, address)
            except Busy:
                await self._users.take_back_attempt(counted, address)
                raise


def _network(address: str | None) -> str:
    """What counts as one address: an IPv4 address, or the /64 that a host with IPv6 has to itself."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "-"
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
