"""Manage users, their grants and their passwords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confide.errors import NotAllowed, NotFound
from confide.identity import password_rules
from confide.identity.access import Access
from confide.identity.authenticator import Authenticator
from confide.identity.errors import NoToken, PasswordMissing
from confide.identity.hasher import Argon2Hasher
from confide.identity.model import Grant, NewUser, Principal, Role, Scope, User, UserChange
from confide.identity.throttle import LoginThrottle

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.changes.feed import ChangeFeed
    from confide.identity.store import UserStore

ADMIN = (Grant(Role.ADMIN, Scope("*", "*")),)


@dataclass(frozen=True, slots=True)
class UserDraft:
    """A user to add. A service account has no password."""

    login: str
    password: str | None = field(repr=False)
    grants: tuple[Grant, ...]


class Users:
    """Manages users, for admins, and lets a user change its own password."""

    def __init__(
        self,
        users: UserStore,
        hasher: Argon2Hasher,
        *,
        throttle: LoginThrottle,
        access: Access,
        recorder: AuditRecorder,
        authenticator: Authenticator,
        change_feed: ChangeFeed,
        min_password_characters: int,
    ) -> None:
        self._authenticator = authenticator
        self._change_feed = change_feed
        self._users = users
        self._hasher = hasher
        self._throttle = throttle
        self._access = access
        self._recorder = recorder
        self._min_characters = min_password_characters

    async def can_add_first_user(self) -> bool:
        return not await self._users.has_had_user()

    async def add(self, draft: UserDraft, *, principal: Principal) -> int:
        """Add a user. Raises `UserExists`."""
        await self._access.require_admin(principal, action="add user")
        await self._access.require_unrestricted_token(principal, action="add user")
        return await self._add(draft, principal=principal)

    async def add_first(self, draft: UserDraft) -> int:
        """Add the first user, which becomes admin. Raises `NoToken` if the database has ever had a user."""
        if not await self.can_add_first_user():
            raise NoToken
        if draft.password is None:
            raise PasswordMissing
        user = NewUser(draft.login, ADMIN, await self._hash_password(draft.password, login=draft.login))
        audit = self._recorder.sign("add user", "first", principal=None, subject=f"user {draft.login}")
        user_id = await self._users.add_first(user, audit=audit)
        if user_id is None:
            raise NoToken
        return user_id

    async def add_on_host(self, draft: UserDraft) -> int:
        """Add a user for an operator with direct access to the database."""
        return await self._add(draft, principal=None)

    async def list(self, *, principal: Principal) -> Sequence[User]:
        await self._access.require_admin(principal, action="list users")
        return await self._users.list_all()

    async def read(self, login: str, *, principal: Principal) -> User:
        await self._access.require_admin(principal, action="read user")
        user = await self._users.read(login)
        if user is None:
            raise NotFound
        return user

    async def change(
        self,
        login: str,
        *,
        principal: Principal,
        grants: tuple[Grant, ...] | None = None,
        is_disabled: bool | None = None,
        password: str | None = None,
        is_keeping_tokens: bool = False,
    ) -> User:
        """Change a user. None keeps a field. `is_disabled` ends the sessions of the user.

        A new password ends all tokens of the user, or with `is_keeping_tokens` only the sessions.
        """
        await self._access.require_admin(principal, action="change user")
        if grants is not None or password is not None:
            await self._access.require_unrestricted_token(principal, action="change user")
        hashed = None if password is None else await self._hash_password(password, login=login)
        user = await self._change(
            login, UserChange(grants, is_disabled, hashed, is_keeping_tokens), principal=principal
        )
        if hashed is not None:
            await self._throttle.unlock(login)
        return user

    async def set_password_on_host(self, login: str, password: str, *, is_keeping_tokens: bool) -> None:
        user = await self._users.read(login)
        if user is None:
            raise NotFound
        if user.password is None:
            raise NotAllowed("A service account has no password. Create a token for it.")
        hashed = await self._hash_password(password, login=login)
        change = UserChange(password=hashed, is_keeping_tokens=is_keeping_tokens)
        await self._change(login, change, principal=None)
        await self._throttle.unlock(login)

    async def unlock_on_host(self, login: str) -> None:
        """Forget the failed logins of a user. Raises `NotFound`."""
        if await self._users.read(login) is None:
            raise NotFound
        await self._recorder.record("unlock user", "unlocked", principal=None, subject=f"user {login}")
        await self._throttle.unlock(login)

    async def remove(self, login: str, *, principal: Principal) -> None:
        await self._access.require_admin(principal, action="remove user")
        audit = self._recorder.sign("remove user", "removed", principal=principal, subject=f"user {login}")
        user = await self._users.read(login)
        if user is None or not await self._users.remove(login, audit=audit):
            raise NotFound
        self._forget(user.id)

    async def change_own_password(
        self, old: str, new: str, *, principal: Principal, is_keeping_tokens: bool = False
    ) -> None:
        """Change the password of the caller after verifying the old one.

        This ends all other tokens of the caller, or with `is_keeping_tokens` only the sessions.
        """
        await self._access.require_unrestricted_token(principal, action="change password")
        async with self._throttle.begin_attempt(principal.login, is_authenticated=True) as attempt:
            user = await self._users.read(principal.login)
            if not await self._hasher.verify(password_rules.normalize(old), user.password if user else None):
                await self._access.record_denial("change password", principal=principal)
                raise NotAllowed("The old password is wrong. Check it and try again.")
            await attempt.record_success()
        hashed = await self._hash_password(new, login=principal.login)
        audit = self._recorder.sign(
            "change password", "changed", principal=principal, subject=f"user {principal.login}"
        )
        await self._users.set_password(
            principal.user_id, hashed, keep=principal.token_id, is_keeping_tokens=is_keeping_tokens, audit=audit
        )
        self._forget(principal.user_id)

    async def _add(self, draft: UserDraft, *, principal: Principal | None) -> int:
        hashed = None if draft.password is None else await self._hash_password(draft.password, login=draft.login)
        audit = self._recorder.sign("add user", "added", principal=principal, subject=f"user {draft.login}")
        return await self._users.add(NewUser(draft.login, draft.grants, hashed), audit=audit)

    async def _change(self, login: str, change: UserChange, *, principal: Principal | None) -> User:
        audit = self._recorder.sign("change user", "changed", principal=principal, subject=f"user {login}")
        user = await self._users.change(login, change, audit=audit)
        if user is None:
            raise NotFound
        self._forget(user.id)
        return user

    def _forget(self, user_id: int) -> None:
        self._authenticator.forget_user(user_id)
        self._change_feed.notify()

    async def _hash_password(self, password: str, *, login: str) -> str:
        return await self._hasher.hash(
            password_rules.require_acceptable(password, login=login, min_characters=self._min_characters)
        )
