"""Limit the rate of failed logins. The attempts are in the database, so that all workers share the limit."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from confide.clock import Clock
from confide.context import current_request, has_time_left
from confide.errors import Busy
from confide.identity.errors import RateLimited
from confide.identity.model import normalize_attempted_login
from confide.keyed_lock import KeyedLock, LockQueue

if TYPE_CHECKING:
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.identity.store import UserStore

MAX_QUEUED = 64


class LoginAttempt:
    """One login attempt, which counts as failed until `record_success`."""

    def __init__(self, users: UserStore, login_mac: bytes, address: str) -> None:
        self._users = users
        self._login_mac = login_mac
        self._address = address

    async def record_success(self) -> None:
        await self._users.clear_attempts(self._login_mac, self._address)


class LoginThrottle:
    """Counts each attempt before the password is verified, so that a burst cannot exceed the limit."""

    def __init__(self, users: UserStore, encryption: EnvelopeEncryption, clock: Clock) -> None:
        self._users = users
        self._encryption = encryption
        self._clock = clock
        # One attempt at a time for each login, so that concurrent correct logins do not count as failures.
        self._locks: KeyedLock[bytes, LockQueue] = KeyedLock(LockQueue, max_queued=MAX_QUEUED)

    @asynccontextmanager
    async def begin_attempt(self, login: str) -> AsyncIterator[LoginAttempt]:
        """Begin an attempt. Raises `RateLimited` after too many failures, whether or not the login exists.

        Raises `Busy` if the attempts before this one take too long.
        """
        # Only a MAC is stored, because users sometimes type their password into the login field.
        login_mac = self._encryption.compute_mac("audit", b"login " + normalize_attempted_login(login).encode())
        address = _find_client_network(current_request.get().address)
        async with self._locks.acquire(login_mac):
            if not has_time_left():
                # The time went to the attempts before this one. The database is not to blame.
                raise Busy("Too many logins of this user are in progress. Try again.", retry_after_seconds=1)
            wait_seconds = await self._users.begin_attempt(login_mac, address, now=self._clock())
            if wait_seconds is not None:
                raise RateLimited(_describe_wait(wait_seconds), retry_after_seconds=wait_seconds)
            try:
                yield LoginAttempt(self._users, login_mac, address)
            except Busy:
                await self._users.delete_latest_attempt(login_mac, address)
                raise


def _find_client_network(address: str | None) -> str:
    """Return the IPv4 address of a client, or its IPv6 /64 network, which one host usually owns."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "-"
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _describe_wait(seconds: int) -> str:
    minutes = max(1, math.ceil((seconds - 1) / 60))  # the limit lies up to a second before `Retry-After`
    return f"Too many failed logins. Try again in {minutes} minute{'' if minutes == 1 else 's'}."
