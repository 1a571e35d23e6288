"""Authenticate tokens. A token that was looked up is cached under the same lease as configs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet, WeakValueDictionary

from confide.caching.lease import Lease
from confide.caching.lru_cache import CacheEntry, LruCache
from confide.caching.single_flight import SingleFlight
from confide.caching.stamps import EVERYTHING, Stamps, TakenStamps, find_token_slot
from confide.clock import MICROSECONDS_PER_SECOND, Clock, read_boot_clock
from confide.identity.errors import InvalidToken
from confide.identity.model import Credential, Principal, Token, User, parse_credential
from confide.telemetry.io_log import NO_IO_LOG, IoLog

if TYPE_CHECKING:
    from confide.identity.store import TokenStore

# Estimated memory of a principal with its token, user and index entries, and of each grant.
PRINCIPAL_BYTES = 1_800
GRANT_BYTES = 400


class AuthenticatedToken(CacheEntry):
    """A token and its principal in the cache. Times are seconds of the boot-time clock."""

    __slots__ = ("__weakref__", "credential", "expires_at", "fresh_until", "principal", "slot", "stamp", "stamps")

    def __init__(
        self,
        credential: Credential,
        principal: Principal,
        stamps: TakenStamps,
        *,
        expires_at: float,
        fresh_until: float,
    ) -> None:
        grants = sum(map(len, principal.grant_groups))
        super().__init__(PRINCIPAL_BYTES + GRANT_BYTES * grants)
        self.credential = credential
        self.principal = principal
        # Those of the token and of everything, in this order.
        self.stamps = stamps
        # The first of them.
        self.slot, self.stamp = stamps.slots[0], stamps.stamps[0]
        self.expires_at = expires_at
        self.fresh_until = fresh_until


class Authenticator:
    """Finds the principals of tokens. A change of a token or its user in the change feed removes the cached token."""

    def __init__(
        self,
        tokens: TokenStore,
        memory: LruCache[Any],
        lease: Lease,
        stamps: Stamps,
        *,
        clock: Clock,
        ttl_seconds: float,
        io: IoLog = NO_IO_LOG,
    ) -> None:
        self._tokens = tokens
        self._memory = memory
        self._lease = lease
        self._stamps = stamps
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._by_token_id: WeakValueDictionary[int, AuthenticatedToken] = WeakValueDictionary()
        self._by_user_id: dict[int, WeakSet[AuthenticatedToken]] = {}
        # Counts invalidations, so that a lookup notices one that happened meanwhile.
        self._invalidations = 0
        self._lookups: SingleFlight[tuple[Credential, TakenStamps], AuthenticatedToken] = SingleFlight(
            lambda shared: self._look_up(shared[0]), io=io
        )

    def find_fresh(self, credential: Credential, *, now: float) -> AuthenticatedToken | None:
        """Return the cached token while the lease and its stamps prove that it is current, or None."""
        token: AuthenticatedToken | None = self._memory.get(credential, now=now)
        if token is None or now >= self._lease.expires_at or now >= token.fresh_until:
            return None
        return token if self._stamps.is_unchanged(token.stamps) else None

    def find_unexpired(self, credential: Credential, *, now: float) -> AuthenticatedToken | None:
        """Return the cached token unless it has expired, even if another machine may have revoked it."""
        token: AuthenticatedToken | None = self._memory.get(credential, now=now)
        return (
            None if token is None or now >= token.expires_at or not self._stamps.is_unchanged(token.stamps) else token
        )

    def parse(self, token: str) -> Credential:
        """Return the credential of a token without using the database. Raises `InvalidToken` if it is malformed."""
        credential = parse_credential(token)
        if credential is None:
            raise InvalidToken
        return credential

    async def authenticate(self, credential: Credential) -> AuthenticatedToken:
        """Return the token from the cache or the database. Raises `InvalidToken` or `DatabaseUnavailable`."""
        token = self.find_fresh(credential, now=read_boot_clock())
        if token is not None:
            return token
        stamps = self._take_stamps(credential)
        return await (self._look_up(credential) if stamps.is_in_doubt else self._lookups.get((credential, stamps)))

    def forget_token(self, token_id: int) -> None:
        self._invalidations += 1
        if (token := self._by_token_id.pop(token_id, None)) is not None:
            self._memory.drop(token.credential)

    def forget_user(self, user_id: int) -> None:
        self._invalidations += 1
        for token in self._by_user_id.pop(user_id, ()):
            self._memory.drop(token.credential)

    def discard_pending(self) -> None:
        """Discard the result of every lookup that is in progress."""
        self._invalidations += 1

    async def _look_up(self, credential: Credential) -> AuthenticatedToken:
        while True:
            invalidations, stamps = self._invalidations, self._take_stamps(credential)
            found = await self._tokens.read(credential)
            if invalidations == self._invalidations:
                break  # otherwise a token changed during the lookup, perhaps this one
        authenticated = None if found is None else self._store(credential, *found, stamps)
        if authenticated is None:
            self._memory.drop(credential)
            raise InvalidToken
        return authenticated

    def _take_stamps(self, credential: Credential) -> TakenStamps:
        return self._stamps.take(find_token_slot(credential), EVERYTHING)

    def _store(
        self, credential: Credential, token: Token, user: User, stamps: TakenStamps
    ) -> AuthenticatedToken | None:
        """Store a token in the cache and return it. None if it has expired or its user is disabled.

        If its stamps are no longer current, it is returned but not cached. It is invalid, so that a watch stream, which
        keeps it, looks it up again.
        """
        remaining_seconds = (token.expires_at - self._clock()) / MICROSECONDS_PER_SECOND
        if remaining_seconds <= 0 or user.is_disabled:
            return None
        principal = Principal(
            user.id,
            user.login,
            user.grants,
            token.id,
            token.is_session,
            token_grants=token.grants,
            is_service_account=user.password is None,
            token_expires_at=token.expires_at,
        )
        now = read_boot_clock()
        fresh_until = now + min(remaining_seconds, self._ttl_seconds)
        authenticated = AuthenticatedToken(
            credential, principal, stamps, expires_at=now + remaining_seconds, fresh_until=fresh_until
        )
        if not self._stamps.is_current(stamps):
            self._memory.drop(credential)
            authenticated.invalidate()
            return authenticated
        self._memory.put(credential, authenticated)
        self._by_token_id[token.id] = authenticated
        self._by_user_id.setdefault(user.id, WeakSet()).add(authenticated)
        return authenticated
