"""Log in and out, and manage service tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from confide.clock import MICROSECONDS_PER_SECOND, Clock
from confide.errors import NotFound
from confide.identity import password_rules, token_format
from confide.identity.access import Access
from confide.identity.authenticator import Authenticator
from confide.identity.errors import InvalidLogin, InvalidToken, LoginFailed
from confide.identity.hasher import Argon2Hasher
from confide.identity.model import CreatedToken, Grant, NewToken, Principal, Token, User, parse_login
from confide.identity.throttle import LoginThrottle

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.changes.feed import ChangeFeed
    from confide.identity.store import TokenStore, UserStore

SESSION_SECONDS = 12 * 60 * 60


class Tokens:
    """Starts and ends sessions, and manages service tokens."""

    def __init__(
        self,
        users: UserStore,
        tokens: TokenStore,
        hasher: Argon2Hasher,
        *,
        throttle: LoginThrottle,
        access: Access,
        recorder: AuditRecorder,
        authenticator: Authenticator,
        change_feed: ChangeFeed,
        clock: Clock,
    ) -> None:
        self._authenticator = authenticator
        self._change_feed = change_feed
        self._users = users
        self._tokens = tokens
        self._hasher = hasher
        self._throttle = throttle
        self._access = access
        self._recorder = recorder
        self._clock = clock

    async def authenticate(self, token: str) -> Principal:
        """Return the principal of a token. Raises `InvalidToken` for every reason."""
        return (await self._authenticator.authenticate(self._authenticator.parse(token))).principal

    async def login(self, login: str, password: str) -> CreatedToken:
        """Start a session.

        Raises `LoginFailed` after the same time whether or not the user exists. Raises `RateLimited` before the
        password is verified.
        """
        plain = password_rules.normalize(password[: 4 * password_rules.MAX_CHARACTERS])
        user, password_hash = await self._verify_password(login, plain)
        expires_at = self._clock() + SESSION_SECONDS * MICROSECONDS_PER_SECOND
        created = await self._create(
            user, label="login", grants=None, expires_at=expires_at, principal=None, password_hash=password_hash
        )
        if created is None:
            # The user was disabled, removed, or got another password during the verification.
            raise LoginFailed
        if self._hasher.is_outdated(password_hash):
            await self._users.rehash(user.id, old=password_hash, new=await self._hasher.hash(plain))
        return created

    async def logout(self, *, principal: Principal) -> None:
        audit = self._recorder.sign("logout", "ended", principal=principal, subject=f"token {principal.token_id}")
        await self._tokens.remove(principal.token_id, owner_id=principal.user_id, audit=audit)
        self._forget(principal.token_id)

    async def add(
        self,
        label: str,
        *,
        principal: Principal,
        login: str | None,
        ttl_seconds: int,
        grants: tuple[Grant, ...] | None,
    ) -> CreatedToken:
        """Create a service token for the caller or, for an admin, for any user.

        A token that a service token creates expires no later than its maker. A session does not limit the token: it
        stands for a person, whose new password ends the token.
        """
        await self._access.require_unrestricted_token(principal, action="add token")
        if login not in (None, principal.login):
            await self._access.require_admin(principal, action="add token")
        user = await self._users.read(login or principal.login)
        if user is None:
            raise NotFound
        expires_at = self._clock() + ttl_seconds * MICROSECONDS_PER_SECOND
        if not principal.is_session and principal.token_expires_at is not None:
            expires_at = min(expires_at, principal.token_expires_at)
        created = await self._create(user, label=label, grants=grants, expires_at=expires_at, principal=principal)
        if created is None:
            raise InvalidToken  # the token of the request was revoked meanwhile, or the user was removed
        return created

    async def list(self, *, principal: Principal) -> Sequence[Token]:
        """List the tokens of the caller, or all tokens for an admin."""
        return await self._tokens.list_all(None if principal.is_admin else principal.user_id)

    async def revoke(self, token_id: int, *, principal: Principal) -> None:
        """Revoke a token of the caller, or any token for an admin. Raises `NotFound`."""
        await self._access.require_unrestricted_token(principal, action="revoke token")
        audit = self._recorder.sign("revoke token", "revoked", principal=principal, subject=f"token {token_id}")
        owner_id = None if principal.is_admin else principal.user_id
        if not await self._tokens.remove(token_id, owner_id=owner_id, audit=audit):
            raise NotFound
        self._forget(token_id)

    async def delete_expired(self) -> None:
        await self._tokens.delete_expired(before=self._clock())

    def _forget(self, token_id: int) -> None:
        self._authenticator.forget_token(token_id)
        self._change_feed.notify()

    async def _create(
        self,
        user: User,
        *,
        label: str,
        grants: tuple[Grant, ...] | None,
        expires_at: int,
        principal: Principal | None,
        password_hash: str | None = None,
    ) -> CreatedToken | None:
        secret = token_format.generate_token()
        hashed = token_format.hash_token(secret) or b""
        made_at, is_session = self._clock(), password_hash is not None
        maker_id = None if principal is None else principal.token_id
        new = NewToken(hashed, user.id, is_session, label, grants, expires_at, password_hash, maker_id)
        action = "login" if is_session else "add token"
        audit = self._recorder.sign(action, "added", principal=principal, subject=f"user {user.login}")
        token_id = await self._tokens.add(new, made_at=made_at, audit=audit)
        if token_id is None:
            return None
        token = Token(token_id, user.id, user.login, is_session, label, grants, made_at, expires_at)
        return CreatedToken(secret, token)

    async def _verify_password(self, login: str, plain: str) -> tuple[User, str]:
        async with self._throttle.begin_attempt(login) as attempt:
            user = await self._find_user(login)
            password_hash = user.password if user and not user.is_disabled else None
            is_match = await self._hasher.verify(plain, password_hash)
            if not is_match or user is None or password_hash is None:
                await self._recorder.record(
                    "login", "failed", principal=None, subject=f"user {user.login}" if user else None
                )
                raise LoginFailed
            await attempt.record_success()
        return user, password_hash

    async def _find_user(self, login: str) -> User | None:
        try:
            return await self._users.read(parse_login(login))
        except InvalidLogin:
            # No user has this login. The lookup makes it take as long as any other login.
            return await self._users.read("")
