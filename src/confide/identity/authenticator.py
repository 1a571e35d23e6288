"""Who a token stands for: looked up once, remembered under the same lease as configs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet, WeakValueDictionary

from confide.caching.lease import Lease
from confide.caching.lru_cache import CacheEntry, LruCache
from confide.caching.single_flight import SingleFlight
from confide.clock import MICROSECONDS_PER_SECOND, Clock, boottime
from confide.identity.errors import InvalidToken
from confide.identity.model import Credential, Principal, Token, User
from confide.telemetry.io_log import NO_IO_LOG, IoLog

if TYPE_CHECKING:
    from confide.identity.store import TokenStore

# A principal with the names and numbers of its token and user, and its places in the indexes; then each grant.
PRINCIPAL_BYTES = 1_600
GRANT_BYTES = 400


class AuthenticatedToken(CacheEntry):
    """A token that was looked up: for whom it stands, and until when in running time that may be believed."""

    __slots__ = ("__weakref__", "credential", "expires", "fresh_until", "principal")

    def __init__(self, credential: Credential, principal: Principal, *, expires: float, fresh_until: float) -> None:
        grants = len(principal.grants) + len(principal.narrowed or ())
        super().__init__(PRINCIPAL_BYTES + GRANT_BYTES * grants)
        self.credential = credential
        self.principal = principal
        self.expires = expires
        self.fresh_until = fresh_until


class Authenticator:
    """The principals of tokens. What the log says of a token or its user ends what is remembered of it."""

    def __init__(
        self,
        tokens: TokenStore,
        memory: LruCache[Any],
        lease: Lease,
        *,
        clock: Clock,
        ttl_seconds: float,
        io: IoLog = NO_IO_LOG,
    ) -> None:
        self._tokens = tokens
        self._memory = memory
        self._lease = lease
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._of_token: WeakValueDictionary[int, AuthenticatedToken] = WeakValueDictionary()
        self._of_user: dict[int, WeakSet[AuthenticatedToken]] = {}
        self._heard = 0
        self._lookups: SingleFlight[Credential, AuthenticatedToken] = SingleFlight(self._look_up, io=io)

    def find_fresh(self, credential: Credential, *, now: float) -> AuthenticatedToken | None:
        """The token if memory may speak for it; None otherwise."""
        checked: AuthenticatedToken | None = self._memory.get(credential, now=now)
        return None if checked is None or now >= self._lease.expires_at or now >= checked.fresh_until else checked

    def find_unexpired(self, credential: Credential, *, now: float) -> AuthenticatedToken | None:
        """The token whether or not it is proven to be good still; never one that has expired."""
        checked: AuthenticatedToken | None = self._memory.get(credential, now=now)
        return None if checked is None or now >= checked.expires else checked

    async def authenticate(self, credential: Credential) -> AuthenticatedToken:
        """Look a token up, in memory where that is proven; raises `InvalidToken` or `DatabaseUnavailable`."""
        return self.find_fresh(credential, now=boottime()) or await self._lookups.get(credential)

    def forget_token(self, token_id: int) -> None:
        self._heard += 1
        if (checked := self._of_token.pop(token_id, None)) is not None:
            self._memory.drop(checked.credential)

    def forget_user(self, user_id: int) -> None:
        self._heard += 1
        for checked in self._of_user.pop(user_id, ()):
            self._memory.drop(checked.credential)

    def discard_pending(self) -> None:
        """Let nothing be believed that is being looked up now."""
        self._heard += 1

    async def _look_up(self, credential: Credential) -> AuthenticatedToken:
        while True:
            heard = self._heard
            found = await self._tokens.read(credential)
            if heard == self._heard:
                break  # otherwise something was heard of some token meanwhile, perhaps of this one
        checked = None if found is None else self._remember(credential, *found)
        if checked is None:
            self._memory.drop(credential)
            raise InvalidToken
        return checked

    def _remember(self, credential: Credential, token: Token, user: User) -> AuthenticatedToken | None:
        left_seconds = (token.expires_at - self._clock()) / MICROSECONDS_PER_SECOND
        if left_seconds <= 0 or user.is_disabled:
            return None
        principal = Principal(
            user.id,
            user.login,
            user.grants,
            token.id,
            token.is_session,
            narrowed=token.grants,
            is_service_account=user.password is None,
        )
        now = boottime()
        fresh_until = now + min(left_seconds, self._ttl_seconds)
        checked = AuthenticatedToken(credential, principal, expires=now + left_seconds, fresh_until=fresh_until)
        self._memory.put(credential, checked)
        self._of_token[token.id] = checked
        self._of_user.setdefault(user.id, WeakSet()).add(checked)
        return checked
