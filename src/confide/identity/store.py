"""The SQL of users, login attempts and tokens."""

from __future__ import annotations

import json
from typing import NamedTuple

from confide.audit.model import SignedEntry
from confide.caching.stamps import SlotChange, find_token_slot
from confide.database.engine import Engine, Lock, Transaction, statement
from confide.database.log import append_change
from confide.database.model import Row
from confide.database.rows import insert_into, list_columns
from confide.identity.errors import LastAdmin, UserExists
from confide.identity.login_limits import (
    MAX_FROM_ANYWHERE,
    WINDOW_MICROSECONDS,
    FailedAttempt,
    compute_wait_seconds,
)
from confide.identity.model import (
    Grant,
    NewToken,
    NewUser,
    Token,
    TokenWithUser,
    User,
    UserChange,
    has_admin,
    parse_grant,
)


class UserRow(NamedTuple):
    """The columns of a stored user."""

    id: int
    login: str
    grants: str
    disabled: int
    added_at: int
    password: str | None


class NewUserRow(NamedTuple):
    """The columns of a user to insert."""

    login: str
    password: str | None
    grants: str | None
    is_admin: int
    disabled: int
    added_at: int


class TokenRow(NamedTuple):
    """The columns of a stored token, with its user's login."""

    id: int
    user_id: int
    login: str
    is_session: int
    label: str
    grants: str | None
    made_at: int
    expires_at: int


_USER = list_columns(UserRow)
INSERT_USER = f"""/* accounts.add */
    {insert_into("users", NewUserRow)} ON CONFLICT (login) DO NOTHING RETURNING id
"""
_TOKEN = ", ".join(f"u.{name}" if name == "login" else f"t.{name}" for name in TokenRow._fields)
READ_TOKEN = f"""/* tokens.read */
    SELECT {_TOKEN}, {", ".join(f"u.{name}" for name in UserRow._fields)}
    FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.hash = $1
"""
LIST_TOKENS = f"/* tokens.list */ SELECT {_TOKEN} FROM tokens t JOIN users u ON u.id = t.user_id"


class UserStore:
    """Stores users and login attempts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def has_had_user(self) -> bool:
        rows = await self._engine.query("/* accounts.has_had_user */ SELECT first_user_at FROM store")
        return rows[0][0] is not None

    async def add_first(self, user: NewUser, *, audit: SignedEntry) -> int | None:
        """Add the first user. Return None if the database has ever had a user."""
        return await self._engine.transact(_add_first(user, audit))

    async def add(self, user: NewUser, *, audit: SignedEntry) -> int:
        """Add a user. Raises `UserExists`."""
        return await self._engine.transact(_add(user, audit))

    async def read(self, login: str) -> User | None:
        rows = await self._engine.query(f"/* accounts.read */ SELECT {_USER} FROM users WHERE login = $1", login)
        return read_user(rows[0]) if rows else None

    async def list_all(self) -> list[User]:
        rows = await self._engine.query(f"/* accounts.all */ SELECT {_USER} FROM users ORDER BY login")
        return [read_user(row) for row in rows]

    async def change(self, login: str, change: UserChange, *, audit: SignedEntry) -> User | None:
        """Change a user. Return None if it does not exist. Raises `LastAdmin`.

        A new password ends all tokens, except those that a service account had before its first password.
        """
        return await self._engine.transact(_change(login, change, audit))

    async def remove(self, login: str, *, audit: SignedEntry) -> bool:
        """Remove a user and all its tokens. Return False if it does not exist. Raises `LastAdmin`."""
        return await self._engine.transact(_remove(login, audit))

    async def set_password(
        self, user_id: int, password: str, *, keep: int, is_keeping_tokens: bool = False, audit: SignedEntry
    ) -> None:
        """Change the password of a user and end all its tokens except `keep`. Service tokens can stay."""
        await self._engine.transact(
            _set_password(user_id, password, keep=keep, is_keeping_tokens=is_keeping_tokens, audit=audit)
        )

    async def rehash(self, user_id: int, *, old: str, new: str) -> None:
        await self._engine.execute(
            "/* accounts.rehash */ UPDATE users SET password = $3 WHERE id = $1 AND password = $2", user_id, old, new
        )

    async def begin_attempt(self, login: bytes, address: str, *, now: int) -> int | None:
        """Count a login attempt. If too many failed, return the seconds to wait instead."""
        return await self._engine.transact(_begin_attempt(login, address, now))

    async def clear_attempts(self, login: bytes, address: str) -> None:
        await self._engine.execute(
            "/* attempts.clear */ DELETE FROM login_attempts WHERE login = $1 AND address = $2", login, address
        )

    async def delete_latest_attempt(self, login: bytes, address: str) -> None:
        """Delete an attempt whose password was never verified."""
        await self._engine.execute(
            "/* attempts.take_back */ DELETE FROM login_attempts"
            " WHERE id = (SELECT max(id) FROM login_attempts WHERE login = $1 AND address = $2)",
            login,
            address,
        )


class TokenStore:
    """Stores tokens by the hash of their secret."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def read(self, token_hash: bytes) -> TokenWithUser | None:
        rows = await self._engine.query(READ_TOKEN, token_hash)
        if not rows:
            return None
        width = len(TokenRow._fields)
        return TokenWithUser(read_token(rows[0][:width]), read_user(rows[0][width:]))

    async def add(self, token: NewToken, *, made_at: int, audit: SignedEntry) -> int | None:
        """Add a token and return its ID.

        Returns None if the user or the token that makes this one no longer exists. For a session, also if the user was
        disabled or has a new password.
        """
        return await self._engine.transact(_add_token(token, made_at, audit))

    async def list_all(self, user_id: int | None) -> list[Token]:
        """List the tokens of a user, or all tokens."""
        if user_id is None:
            rows = await self._engine.query(f"{LIST_TOKENS} ORDER BY t.id")
        else:
            rows = await self._engine.query(f"{LIST_TOKENS} WHERE t.user_id = $1 ORDER BY t.id", user_id)
        return [read_token(row) for row in rows]

    async def remove(self, token_id: int, *, owner_id: int | None, audit: SignedEntry) -> bool:
        """Remove a token. With `owner_id`, only if it belongs to that user. Return False if there is no such token."""
        return await self._engine.transact(_remove_token(token_id, owner_id, audit))

    async def delete_expired(self, *, before: int) -> None:
        await self._engine.execute("/* tokens.forget_expired */ DELETE FROM tokens WHERE expires_at < $1", before)


def read_user(row: Row) -> User:
    found = UserRow(*row)
    grants = parse_grants(found.grants) or ()
    return User(found.id, found.login, grants, bool(found.disabled), found.added_at, found.password)


def read_token(row: Row) -> Token:
    found = TokenRow(*row)
    return Token(
        found.id,
        found.user_id,
        found.login,
        bool(found.is_session),
        found.label,
        parse_grants(found.grants),
        found.made_at,
        found.expires_at,
    )


def parse_grants(text: str | None) -> tuple[Grant, ...] | None:
    return None if text is None else tuple(parse_grant(*fields) for fields in json.loads(text))


def format_grants(grants: tuple[Grant, ...] | None) -> str | None:
    if grants is None:
        return None
    return json.dumps([[g.role.name.lower(), g.scope.tenant, g.scope.integration_type] for g in grants])


def _insert(user: NewUser, at: int) -> Transaction[int]:
    row = NewUserRow(user.login, user.password, format_grants(user.grants), int(has_admin(user.grants)), 0, at)
    rows = yield statement(INSERT_USER, *row)
    if not rows:
        raise UserExists
    return int(rows[0][0])


def _add_first(user: NewUser, audit: SignedEntry) -> Transaction[int | None]:
    claimed = yield statement(
        "/* accounts.claim_first */ UPDATE store SET first_user_at = $1 WHERE first_user_at IS NULL RETURNING one",
        audit.entry.at,
    )
    if not claimed:
        return None
    user_id = yield from _insert(user, audit.entry.at)
    yield from append_change("user-added", user_id, audit=audit)
    return user_id


def _add(user: NewUser, audit: SignedEntry) -> Transaction[int]:
    # An operator may have added the first user on the host.
    yield statement(
        "/* accounts.note_first */ UPDATE store SET first_user_at = $1 WHERE first_user_at IS NULL", audit.entry.at
    )
    user_id = yield from _insert(user, audit.entry.at)
    yield from append_change("user-added", user_id, audit=audit)
    return user_id


def _change(login: str, change: UserChange, audit: SignedEntry) -> Transaction[User | None]:
    user = yield from _lock_user(login)
    if user is None:
        return None
    changed = User(
        user.id,
        user.login,
        user.grants if change.grants is None else change.grants,
        user.is_disabled if change.is_disabled is None else change.is_disabled,
        user.added_at,
        change.password or user.password,
    )
    yield from _require_remaining_admin(user, after=changed)
    yield from _stamp_tokens(user.id)
    yield statement(
        "/* accounts.change */ UPDATE users SET grants = $2, is_admin = $3, disabled = $4, password = $5 WHERE id = $1",
        user.id,
        format_grants(changed.grants),
        int(has_admin(changed.grants)),
        int(changed.is_disabled),
        changed.password,
    )
    if change.password is not None or changed.is_disabled:
        # The tokens of a service account do not depend on a password.
        is_keeping_tokens = change.password is None or change.is_keeping_tokens or user.password is None
        yield statement(
            "/* accounts.end_tokens */ DELETE FROM tokens WHERE user_id = $1 AND is_session >= $2",
            user.id,
            int(is_keeping_tokens),
        )
    yield from append_change("user-changed", user.id, audit=audit)
    return changed


def _remove(login: str, audit: SignedEntry) -> Transaction[bool]:
    user = yield from _lock_user(login)
    if user is None:
        return False
    yield from _require_remaining_admin(user, after=None)
    yield from _stamp_tokens(user.id)
    yield statement("/* accounts.remove_tokens */ DELETE FROM tokens WHERE user_id = $1", user.id)
    yield statement("/* accounts.remove */ DELETE FROM users WHERE id = $1", user.id)
    yield from append_change("user-removed", user.id, audit=audit)
    return True


def _lock_user(login: str) -> Transaction[User | None]:
    yield Lock("users")
    rows = yield statement(f"/* accounts.read_to_change */ SELECT {_USER} FROM users WHERE login = $1", login)
    return read_user(rows[0]) if rows else None


def _stamp_tokens(user_id: int) -> Transaction[None]:
    """Stamp all tokens of a user, because their permissions change or end. Call this before tokens are deleted."""
    rows = yield statement("/* tokens.hashes */ SELECT hash FROM tokens WHERE user_id = $1", user_id)
    for (token_hash,) in rows:
        yield SlotChange(find_token_slot(bytes(token_hash)))


def _require_remaining_admin(before: User, *, after: User | None) -> Transaction[None]:
    if not before.can_administer or (after is not None and after.can_administer):
        return
    others = yield statement(
        "/* accounts.other_admins */ "
        "SELECT 1 FROM users WHERE id <> $1 AND is_admin = 1 AND disabled = 0 AND password IS NOT NULL LIMIT 1",
        before.id,
    )
    if not others:
        raise LastAdmin


def _set_password(
    user_id: int, password: str, *, keep: int, is_keeping_tokens: bool, audit: SignedEntry
) -> Transaction[None]:
    yield Lock("users")
    yield from _stamp_tokens(user_id)
    yield statement("/* accounts.set_password */ UPDATE users SET password = $2 WHERE id = $1", user_id, password)
    yield statement(
        "/* accounts.end_other_tokens */ DELETE FROM tokens WHERE user_id = $1 AND is_session >= $2 AND id <> $3",
        user_id,
        int(is_keeping_tokens),
        keep,
    )
    yield from append_change("user-changed", user_id, audit=audit)


def _begin_attempt(login: bytes, address: str, now: int) -> Transaction[int | None]:
    yield Lock("login " + login.hex())
    yield statement("/* attempts.forget_old */ DELETE FROM login_attempts WHERE at < $1", now - WINDOW_MICROSECONDS)
    rows = yield statement(
        "/* attempts.read */ SELECT address, at FROM login_attempts WHERE login = $1 ORDER BY at DESC LIMIT $2",
        login,
        MAX_FROM_ANYWHERE,
    )
    wait_seconds = compute_wait_seconds([FailedAttempt(*row) for row in rows], address, now=now)
    if wait_seconds is not None:
        return wait_seconds
    yield statement(
        "/* attempts.add */ INSERT INTO login_attempts (login, address, at) VALUES ($1, $2, $3)", login, address, now
    )
    return None


def _add_token(token: NewToken, made_at: int, audit: SignedEntry) -> Transaction[int | None]:
    # A change of a password holds this lock too, so that no session with the old password is added after it, and no
    # token that a deleted token makes.
    yield Lock("users")
    added = yield statement(
        "/* tokens.add */ INSERT INTO tokens (hash, user_id, is_session, label, grants, made_at, expires_at)"
        " SELECT $1, u.id, CAST($3 AS BIGINT), $4, $5, $6, $7 FROM users u WHERE u.id = $2"
        " AND (CAST($3 AS BIGINT) = 0 OR (u.disabled = 0 AND u.password = $8))"
        " AND (CAST($9 AS BIGINT) IS NULL OR EXISTS (SELECT 1 FROM tokens WHERE id = $9)) RETURNING id",
        token.hash,
        token.user_id,
        int(token.is_session),
        token.label,
        format_grants(token.grants),
        made_at,
        token.expires_at,
        token.password_hash,
        token.maker_id,
    )
    if not added:
        return None
    yield from append_change("token-added", added[0][0], audit=audit)
    return int(added[0][0])


def _remove_token(token_id: int, owner_id: int | None, audit: SignedEntry) -> Transaction[bool]:
    if owner_id is None:
        removed = yield statement("/* tokens.remove */ DELETE FROM tokens WHERE id = $1 RETURNING hash", token_id)
    else:
        removed = yield statement(
            "/* tokens.remove_own */ DELETE FROM tokens WHERE id = $1 AND user_id = $2 RETURNING hash",
            token_id,
            owner_id,
        )
    if not removed:
        return False
    yield SlotChange(find_token_slot(bytes(removed[0][0])))
    yield from append_change("token-revoked", token_id, audit=audit)
    return True
