"""The SQL of users, login attempts and tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from confide.audit.model import SESSIONS, EntryDraft, RowState
from confide.caching.stamps import SlotChange, find_token_slot
from confide.database.engine import Engine, Lock, Many, Transaction, statement
from confide.database.identity import STORE_ROW, UPDATE_STORE, StoreRow, lock_store
from confide.database.log import append_change, describe_row, transact_with_entry
from confide.database.model import Rows
from confide.database.rows import list_columns
from confide.database.signed_rows import RowSigner, update_row
from confide.identity.errors import LastAdmin, UserExists
from confide.identity.login_limits import (
    KNOWN_MICROSECONDS,
    MAX_FROM_ANYWHERE,
    MAX_OVER_ALL_LOGINS,
    WINDOW_MICROSECONDS,
    AttemptKeys,
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
    """A row of the table `users`."""

    id: int
    login: str
    password: str | None
    grants: str
    is_admin: int
    disabled: int
    added_at: int
    removed_at: int | None = None
    counter: int | None = None
    mac: bytes | None = None


class TokenRow(NamedTuple):
    """A row of the table `tokens`. A revoked token has expired, and its row stays until the token would have."""

    id: int
    hash: bytes
    user_id: int
    is_session: int
    label: str
    grants: str | None
    made_at: int
    expires_at: int
    kept_until: int | None = None
    counter: int | None = None
    mac: bytes | None = None


_USER = list_columns(UserRow)
_USERS = f"{_USER} FROM users WHERE removed_at IS NULL"
# The ID is part of the MAC, so the MAC follows when the database has assigned it.
INSERT_USER = f"""/* accounts.add */
    INSERT INTO users ({", ".join(UserRow._fields[1:])}) VALUES ($1, $2, $3, $4, $5, $6, NULL, $7, $8)
    ON CONFLICT (login) DO NOTHING RETURNING id
"""
UPDATE_USER = f"/* accounts.change */ UPDATE {update_row('users', UserRow)}"
_TOKENS = f"{list_columns(TokenRow)} FROM tokens"
INSERT_TOKEN = f"""/* tokens.add */
    INSERT INTO tokens ({", ".join(TokenRow._fields[1:])}) VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, $8, $9)
    RETURNING id
"""
UPDATE_TOKEN = f"/* tokens.change */ UPDATE {update_row('tokens', TokenRow)}"
_TOKEN = ", ".join([*(f"t.{name}" for name in TokenRow._fields), *(f"u.{name}" for name in UserRow._fields)])
_JOINED = f"{_TOKEN} FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.kept_until IS NULL"
READ_TOKEN = f"/* tokens.read */ SELECT {_JOINED} AND t.hash = $1"
FIND_LIVE = "/* tokens.find_live */ SELECT 1 FROM tokens WHERE id = $1 AND kept_until IS NULL"
LIST_TOKENS = f"/* tokens.list */ SELECT {_JOINED}"
# The columns are NOT NULL in a signed store.
UNSIGNED = b""


class UserStore:
    """Stores users and login attempts. Rows whose MAC is invalid count as missing."""

    def __init__(self, engine: Engine, rows: RowSigner) -> None:
        self._engine = engine
        self._rows = rows

    async def has_had_user(self) -> bool:
        """Return whether the database has ever had a user. An altered row of the store does not deny it."""
        rows = await self._engine.query(f"/* accounts.has_had_user */ SELECT {STORE_ROW}")
        row = StoreRow(*rows[0])
        return row.first_user_at is not None or not self._rows.is_believed("store", row)

    async def add_first(self, user: NewUser, *, audit: EntryDraft) -> int | None:
        """Add the first user. Return None if the database has ever had a user."""
        return await transact_with_entry(self._engine, audit, _add_first(self._rows, user, audit))

    async def add(self, user: NewUser, *, audit: EntryDraft) -> int:
        """Add a user. Raises `UserExists`."""
        return await transact_with_entry(self._engine, audit, _add(self._rows, user, audit))

    async def read(self, login: str) -> User | None:
        rows = await self._engine.query(f"/* accounts.read */ SELECT {_USERS} AND login = $1", login)
        return next(iter(self._read_believed(rows)), None)

    async def list_all(self) -> list[User]:
        return self._read_believed(await self._engine.query(f"/* accounts.all */ SELECT {_USERS} ORDER BY login"))

    async def change(self, login: str, change: UserChange, *, audit: EntryDraft) -> User | None:
        """Change a user. Return None if it does not exist. Raises `LastAdmin`.

        A new password ends all tokens, except those that a service account had before its first password.
        """
        return await transact_with_entry(self._engine, audit, _change(self._rows, login, change, audit))

    async def remove(self, login: str, *, audit: EntryDraft) -> bool:
        """Remove a user and revoke all its tokens. Return False if it does not exist. Raises `LastAdmin`.

        The row stays, with a login that no user can have.
        """
        return await transact_with_entry(self._engine, audit, _remove(self._rows, login, audit))

    async def set_password(
        self, user_id: int, password: str, *, keep: int, is_keeping_tokens: bool = False, audit: EntryDraft
    ) -> None:
        """Change the password of a user and end all its tokens except `keep`. Service tokens can stay."""
        await transact_with_entry(
            self._engine,
            audit,
            _set_password(self._rows, user_id, password, keep=keep, is_keeping_tokens=is_keeping_tokens, audit=audit),
        )

    async def rehash(self, user_id: int, *, old: str, new: str) -> None:
        await self._engine.transact(_rehash(self._rows, user_id, old, new))

    def _read_believed(self, rows: Rows) -> list[User]:
        found = [UserRow(*row) for row in rows]
        return [read_user(row) for row in found if self._rows.is_believed("users", row)]

    async def is_known_login(self, keys: AttemptKeys, *, now: int) -> bool:
        """Return whether the login succeeded from its address within `KNOWN_MICROSECONDS`."""
        rows = await self._engine.query(
            "/* attempts.known */ SELECT 1 FROM login_attempts WHERE login = $1 AND address = $2 AND at >= $3 LIMIT 1",
            keys.known,
            keys.stored_address,
            now - WINDOW_MICROSECONDS,
        )
        return bool(rows)

    async def begin_attempt(self, keys: AttemptKeys, *, is_known: bool, now: int) -> int | None:
        """Count a login attempt. If too many failed, return the seconds to wait instead."""
        return await self._engine.transact(_begin_attempt(keys, is_known=is_known, now=now))

    async def record_success(self, keys: AttemptKeys, *, now: int) -> None:
        """Forget the failures of the login from its address, and remember that it succeeded there."""
        await self._engine.transact(_record_success(keys, now))

    async def clear_attempts(self, login: bytes) -> None:
        """Forget the failures of a login from all addresses."""
        await self._engine.execute("/* attempts.clear_all */ DELETE FROM login_attempts WHERE login = $1", login)

    async def delete_latest_attempt(self, keys: AttemptKeys) -> None:
        """Delete an attempt whose password was never verified."""
        await self._engine.transact(_delete_latest_attempt(keys))


class TokenStore:
    """Stores tokens by the hash of their secret. Rows whose MAC is invalid count as missing."""

    def __init__(self, engine: Engine, rows: RowSigner) -> None:
        self._engine = engine
        self._rows = rows

    async def read(self, token_hash: bytes) -> TokenWithUser | None:
        rows = await self._engine.query(READ_TOKEN, token_hash)
        return next(iter(self._read_believed(rows)), None)

    async def add(self, token: NewToken, *, made_at: int, audit: EntryDraft) -> int | None:
        """Add a token and return its ID.

        Returns None if the user or the token that makes this one no longer exists. For a session, also if the user was
        disabled or has a new password.
        """
        return await transact_with_entry(self._engine, audit, _add_token(self._rows, token, made_at, audit))

    async def list_all(self, user_id: int | None) -> list[Token]:
        """List the tokens of a user, or all tokens, without revoked ones."""
        if user_id is None:
            rows = await self._engine.query(f"{LIST_TOKENS} ORDER BY t.id")
        else:
            rows = await self._engine.query(f"{LIST_TOKENS} AND t.user_id = $1 ORDER BY t.id", user_id)
        return [token for token, _ in self._read_believed(rows)]

    async def remove(self, token_id: int, *, owner_id: int | None, audit: EntryDraft) -> bool:
        """Revoke a token. With `owner_id`, only if it belongs to that user. Return False if there is no such token."""
        return await transact_with_entry(self._engine, audit, _remove_token(self._rows, token_id, owner_id, audit))

    async def delete_expired(self, *, before: int) -> None:
        await self._engine.execute(
            "/* tokens.forget_expired */ DELETE FROM tokens WHERE coalesce(kept_until, expires_at) < $1", before
        )

    def _read_believed(self, rows: Rows) -> list[TokenWithUser]:
        width = len(TokenRow._fields)
        found = [(TokenRow(*row[:width]), UserRow(*row[width:])) for row in rows]
        return [
            TokenWithUser(read_token(token, user.login), read_user(user))
            for token, user in found
            if self._rows.is_believed("tokens", token) and self._rows.is_believed("users", user)
        ]


def read_user(row: UserRow) -> User:
    grants = parse_grants(row.grants) or ()
    return User(row.id, row.login, grants, bool(row.disabled), row.added_at, row.password)


def read_token(row: TokenRow, login: str) -> Token:
    grants = parse_grants(row.grants)
    return Token(row.id, row.user_id, login, bool(row.is_session), row.label, grants, row.made_at, row.expires_at)


def parse_grants(text: str | None) -> tuple[Grant, ...] | None:
    return None if text is None else tuple(parse_grant(*fields) for fields in json.loads(text))


def format_grants(grants: tuple[Grant, ...] | None) -> str | None:
    if grants is None:
        return None
    return json.dumps([[g.role.name.lower(), g.scope.tenant, g.scope.integration_type] for g in grants])


def _insert(rows: RowSigner, user: NewUser, at: int) -> Transaction[UserRow]:
    new = UserRow(0, user.login, user.password, format_grants(user.grants) or "[]", int(has_admin(user.grants)), 0, at)
    values = (new.login, new.password, new.grants, new.is_admin, new.disabled, new.added_at)
    inserted = yield statement(INSERT_USER, *values, 0, UNSIGNED)
    if not inserted:
        raise UserExists
    signed = rows.sign("users", new._replace(id=int(inserted[0][0])))
    yield statement(UPDATE_USER, *signed)
    return signed


def _add_first(rows: RowSigner, user: NewUser, audit: EntryDraft) -> Transaction[int | None]:
    store = yield from lock_store()
    if store.first_user_at is not None or not rows.is_believed("store", store):
        return None
    changed = rows.sign("store", store, first_user_at=audit.entry.at)
    yield statement(UPDATE_STORE, *changed)
    added = yield from _insert(rows, user, audit.entry.at)
    states = [describe_row("store", changed), describe_row("users", added)]
    yield from append_change("user-added", added.id, audit=audit, rows=states)
    return added.id


def _add(rows: RowSigner, user: NewUser, audit: EntryDraft) -> Transaction[int]:
    # An operator may have added the first user on the host.
    store = yield from lock_store()
    states = []
    if store.first_user_at is None and rows.is_believed("store", store):
        changed = rows.sign("store", store, first_user_at=audit.entry.at)
        yield statement(UPDATE_STORE, *changed)
        states.append(describe_row("store", changed))
    added = yield from _insert(rows, user, audit.entry.at)
    states.append(describe_row("users", added))
    yield from append_change("user-added", added.id, audit=audit, rows=states)
    return added.id


def _change(rows: RowSigner, login: str, change: UserChange, audit: EntryDraft) -> Transaction[User | None]:
    row = yield from _lock_user(rows, "login = $1", login)
    if row is None:
        return None
    user = read_user(row)
    changed = User(
        user.id,
        user.login,
        user.grants if change.grants is None else change.grants,
        user.is_disabled if change.is_disabled is None else change.is_disabled,
        user.added_at,
        change.password or user.password,
    )
    yield from _require_remaining_admin(rows, user, after=changed)
    yield from _stamp_tokens(user.id)
    new = rows.sign(
        "users",
        row,
        grants=format_grants(changed.grants),
        is_admin=int(has_admin(changed.grants)),
        disabled=int(changed.is_disabled),
        password=changed.password,
    )
    yield statement(UPDATE_USER, *new)
    revoked: list[TokenRow] = []
    if change.password is not None or changed.is_disabled:
        # The tokens of a service account do not depend on a password.
        is_keeping_tokens = change.password is None or change.is_keeping_tokens or user.password is None
        revoked = yield from _revoke_tokens(
            rows, "user_id = $1 AND is_session >= $2", user.id, int(is_keeping_tokens), at=audit.entry.at
        )
    yield from append_change("user-changed", user.id, audit=audit, rows=_describe(new, revoked))
    return changed


def _remove(rows: RowSigner, login: str, audit: EntryDraft) -> Transaction[bool]:
    row = yield from _lock_user(rows, "login = $1", login)
    if row is None:
        return False
    yield from _require_remaining_admin(rows, read_user(row), after=None)
    yield from _stamp_tokens(row.id)
    revoked = yield from _revoke_tokens(rows, "user_id = $1", row.id, at=audit.entry.at)
    # The login becomes free for another user. No user can have one with spaces.
    removed = rows.sign(
        "users",
        row,
        login=f"removed {row.id} {row.login}",
        password=None,
        grants="[]",
        is_admin=0,
        disabled=1,
        removed_at=audit.entry.at,
    )
    yield statement(UPDATE_USER, *removed)
    yield from append_change("user-removed", row.id, audit=audit, rows=_describe(removed, revoked))
    return True


def _lock_user(rows: RowSigner, condition: str, *args: str | int) -> Transaction[UserRow | None]:
    yield Lock("users")
    found = yield statement(f"/* accounts.read_to_change */ SELECT {_USERS} AND {condition}", *args)
    row = UserRow(*found[0]) if found else None
    return row if row is not None and rows.is_believed("users", row) else None


def _revoke_tokens(rows: RowSigner, condition: str, *args: int, at: int) -> Transaction[list[TokenRow]]:
    """Revoke tokens that have not expired. Their rows stay. The caller holds the lock of users."""
    live = f"kept_until IS NULL AND {condition}"
    found = yield statement(f"/* tokens.read_to_revoke */ SELECT {_TOKENS} WHERE {live} ORDER BY id", *args)
    tokens = [TokenRow(*row) for row in found]
    revoked = [
        rows.sign("tokens", token, expires_at=min(at, token.expires_at), kept_until=token.expires_at)
        for token in tokens
        if rows.is_believed("tokens", token)
    ]
    if revoked:
        yield Many(UPDATE_TOKEN, revoked)
    return revoked


def _describe(user: UserRow | None, tokens: Sequence[TokenRow]) -> list[RowState]:
    states = [] if user is None else [describe_row("users", user)]
    for token in tokens:
        state = describe_row("tokens", token, until=token.kept_until or token.expires_at)
        states.append(state._replace(table=SESSIONS) if token.is_session else state)
    return states


def _stamp_tokens(user_id: int) -> Transaction[None]:
    """Stamp all tokens of a user, because their permissions change or end. Call this before tokens are revoked."""
    rows = yield statement(
        "/* tokens.hashes */ SELECT hash FROM tokens WHERE user_id = $1 AND kept_until IS NULL", user_id
    )
    for (token_hash,) in rows:
        yield SlotChange(find_token_slot(bytes(token_hash)))


def _require_remaining_admin(rows: RowSigner, before: User, *, after: User | None) -> Transaction[None]:
    if not before.can_administer or (after is not None and after.can_administer):
        return
    others = yield statement(
        f"/* accounts.other_admins */ SELECT {_USERS}"
        " AND id <> $1 AND is_admin = 1 AND disabled = 0 AND password IS NOT NULL",
        before.id,
    )
    if not any(rows.is_believed("users", UserRow(*other)) for other in others):
        raise LastAdmin


def _set_password(
    rows: RowSigner, user_id: int, password: str, *, keep: int, is_keeping_tokens: bool, audit: EntryDraft
) -> Transaction[None]:
    row = yield from _lock_user(rows, "id = $1", user_id)
    if row is None:
        return  # removed meanwhile, with all its tokens
    yield from _stamp_tokens(user_id)
    changed = rows.sign("users", row, password=password)
    yield statement(UPDATE_USER, *changed)
    ended = "user_id = $1 AND is_session >= $2 AND id <> $3"
    revoked = yield from _revoke_tokens(rows, ended, user_id, int(is_keeping_tokens), keep, at=audit.entry.at)
    yield from append_change("user-changed", user_id, audit=audit, rows=_describe(changed, revoked))


def _rehash(rows: RowSigner, user_id: int, old: str, new: str) -> Transaction[None]:
    row = yield from _lock_user(rows, "id = $1", user_id)
    if row is not None and row.password == old:
        yield statement(UPDATE_USER, *rows.sign("users", row, password=new))


def _begin_attempt(keys: AttemptKeys, *, is_known: bool, now: int) -> Transaction[int | None]:
    # Always in this order, so that two attempts cannot wait for each other.
    yield Lock("login " + keys.login.hex())
    yield Lock("login " + keys.all_logins.hex())
    yield statement("/* attempts.forget_old */ DELETE FROM login_attempts WHERE at < $1", now - WINDOW_MICROSECONDS)
    failed = yield from _read_attempts(keys.login, MAX_FROM_ANYWHERE)
    over_all_logins = yield from _read_attempts(keys.all_logins, MAX_OVER_ALL_LOGINS)
    wait_seconds = compute_wait_seconds(
        failed, over_all_logins, keys.address, is_proxy=keys.is_proxy, is_known=is_known, now=now
    )
    if wait_seconds is not None:
        return wait_seconds
    yield from _insert_attempt(keys.login, keys.stored_address, now)
    if keys.address is not None and not keys.is_proxy:
        yield from _insert_attempt(keys.all_logins, keys.address, now)
    return None


def _read_attempts(login: bytes, limit: int) -> Transaction[list[FailedAttempt]]:
    rows = yield statement(
        "/* attempts.read */ SELECT address, at FROM login_attempts WHERE login = $1 ORDER BY at DESC LIMIT $2",
        login,
        limit,
    )
    return [FailedAttempt(*row) for row in rows]


def _insert_attempt(login: bytes, address: str, at: int) -> Transaction[None]:
    yield statement(
        "/* attempts.add */ INSERT INTO login_attempts (login, address, at) VALUES ($1, $2, $3)", login, address, at
    )


def _record_success(keys: AttemptKeys, now: int) -> Transaction[None]:
    yield from _delete_latest_attempt(keys)
    for login in (keys.login, keys.known):
        yield statement(
            "/* attempts.clear */ DELETE FROM login_attempts WHERE login = $1 AND address = $2",
            login,
            keys.stored_address,
        )
    # The row is ahead of its time, so that it is deleted together with the attempts of then, also by older releases.
    yield from _insert_attempt(keys.known, keys.stored_address, now + KNOWN_MICROSECONDS - WINDOW_MICROSECONDS)


def _delete_latest_attempt(keys: AttemptKeys) -> Transaction[None]:
    for login in (keys.login, keys.all_logins):
        yield statement(
            "/* attempts.take_back */ DELETE FROM login_attempts"
            " WHERE id = (SELECT max(id) FROM login_attempts WHERE login = $1 AND address = $2)",
            login,
            keys.stored_address,
        )


def _add_token(rows: RowSigner, token: NewToken, made_at: int, audit: EntryDraft) -> Transaction[int | None]:
    # A change of a password holds this lock too, so that no session with the old password is added after it, and no
    # token that a revoked token makes.
    user = yield from _lock_user(rows, "id = $1", token.user_id)
    if user is None or (token.is_session and (user.disabled or user.password != token.password_hash)):
        return None
    if token.maker_id is not None and not (yield statement(FIND_LIVE, token.maker_id)):
        return None
    grants = format_grants(token.grants)
    values = (token.hash, token.user_id, int(token.is_session), token.label, grants, made_at, token.expires_at)
    ((token_id,),) = yield statement(INSERT_TOKEN, *values, 0, UNSIGNED)
    added = rows.sign("tokens", TokenRow(token_id, *values))
    yield statement(UPDATE_TOKEN, *added)
    yield from append_change("token-added", token_id, audit=audit, rows=_describe(None, [added]))
    return int(token_id)


def _remove_token(rows: RowSigner, token_id: int, owner_id: int | None, audit: EntryDraft) -> Transaction[bool]:
    yield Lock("users")
    if owner_id is None:
        revoked = yield from _revoke_tokens(rows, "id = $1", token_id, at=audit.entry.at)
    else:
        revoked = yield from _revoke_tokens(rows, "id = $1 AND user_id = $2", token_id, owner_id, at=audit.entry.at)
    if not revoked:
        return False
    yield SlotChange(find_token_slot(bytes(revoked[0].hash)))
    yield from append_change("token-revoked", token_id, audit=audit, rows=_describe(None, revoked))
    return True
