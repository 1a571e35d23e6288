"""Limit the rate of failed logins. The attempts are in the database, so that all workers share the limit."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from confide.clock import Clock
from confide.context import current_request, has_time_left
from confide.errors import Busy
from confide.identity.errors import RateLimited
from confide.identity.hash_queue import HashQueue
from confide.identity.login_limits import AttemptKeys
from confide.identity.model import normalize_attempted_login
from confide.keyed_lock import KeyedLock, LockQueue
from confide.networks import find_network

if TYPE_CHECKING:
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.identity.store import UserStore

MAX_QUEUED = 64


class LoginAttempt:
    """One login attempt, which counts as failed until `record_success`."""

    def __init__(self, users: UserStore, keys: AttemptKeys, clock: Clock) -> None:
        self._users = users
        self._keys = keys
        self._clock = clock

    async def record_success(self) -> None:
        await self._users.record_success(self._keys, now=self._clock())


class LoginThrottle:
    """Counts each attempt before the password is verified, so that a burst cannot exceed the limit."""

    def __init__(self, users: UserStore, encryption: EnvelopeEncryption, queue: HashQueue, clock: Clock) -> None:
        self._users = users
        self._encryption = encryption
        self._queue = queue
        self._clock = clock
        # One attempt at a time for each login and address, so that concurrent correct logins do not count as failures.
        self._locks: KeyedLock[tuple[bytes, str], LockQueue] = KeyedLock(LockQueue, max_queued=MAX_QUEUED)

    @asynccontextmanager
    async def begin_attempt(self, login: str, *, is_authenticated: bool = False) -> AsyncIterator[LoginAttempt]:
        """Begin an attempt and hold a place in the hash queue.

        Raises `RateLimited` after too many failures, whether or not the login exists. Raises `Busy` if the attempts
        before this one take too long, or if there is no place. `is_authenticated` says that a token has proven the
        caller.
        """
        keys = self._build_keys(login)
        async with self._locks.acquire((keys.login, keys.stored_address)):
            if not has_time_left():
                # The time went to the attempts before this one. The database is not to blame.
                raise Busy("Too many logins of this user are in progress. Try again.", retry_after_seconds=1)
            is_known = await self._users.is_known_login(keys, now=self._clock())
            is_proven = is_known or is_authenticated
            # Before anything is written, so that a flood of attempts without a place costs only the query.
            with (
                self._queue.take_reserved()
                if is_proven
                else self._queue.take_unproven(None if keys.is_proxy else keys.address)
            ):
                wait_seconds = await self._users.begin_attempt(keys, is_known=is_known, now=self._clock())
                if wait_seconds is not None:
                    raise RateLimited(_describe_wait(wait_seconds), retry_after_seconds=wait_seconds)
                try:
                    yield LoginAttempt(self._users, keys, self._clock)
                except Busy:
                    await self._users.delete_latest_attempt(keys)
                    raise

    async def unlock(self, login: str) -> None:
        """Forget the failed attempts of a login from all addresses."""
        await self._users.clear_attempts(self._build_keys(login).login)

    def _build_keys(self, login: str) -> AttemptKeys:
        request = current_request.get()
        address = find_network(request.address)
        name = normalize_attempted_login(login).encode()
        return AttemptKeys(
            self._encryption.compute_mac("audit", b"login " + name),
            self._encryption.compute_mac("audit", b"known login " + name),
            self._encryption.compute_mac("audit", b"all logins " + (address or "-").encode()),
            address,
            request.is_proxy_address,
        )


def _describe_wait(seconds: int) -> str:
    minutes = max(1, math.ceil((seconds - 1) / 60))  # the limit lies up to a second before `Retry-After`
    return f"Too many failed logins. Try again in {minutes} minute{'' if minutes == 1 else 's'}."
