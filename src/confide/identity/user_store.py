"""Users, and the limit on failed logins, in the same words on both engines."""

from __future__ import annotations

import json

from confide.audit.model import AuditEntry
from confide.clock import SECOND
from confide.database.engine import Engine, Lock, Transaction, statement
from confide.database.log import append_change
from confide.database.model import Row
from confide.identity.errors import LastAdmin, UserExists
from confide.identity.model import Grant, NewUser, User, UserChange, grant, has_admin

COLUMNS = "id, login, grants, disabled, added_at, password"
WINDOW_SECONDS = 15 * 60
MAX_FROM_ONE_ADDRESS = 5
MAX_FROM_ANYWHERE = 20


class UserStore:
    """Users of the store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def has_had_user(self) -> bool:
        rows = await self._engine.rows("/* accounts.has_had_user */ SELECT first_user_at FROM store")
        return rows[0][0] is not None

    async def add_first(self, user: NewUser, *, entry: AuditEntry, mac: bytes) -> int | None:
        return await self._engine.transact(_add_first(user, entry, mac))

    async def add(self, user: NewUser, *, entry: AuditEntry, mac: bytes) -> int:
        return await self._engine.transact(_add(user, entry, mac))

    async def read(self, login: str) -> User | None:
        rows = await self._engine.rows(f"/* accounts.read */ SELECT {COLUMNS} FROM users WHERE login = $1", login)
        return user_of(rows[0]) if rows else None

    async def all(self) -> list[User]:
        return [
            user_of(row)
            for row in await self._engine.rows(f"/* accounts.all */ SELECT {COLUMNS} FROM users ORDER BY login")
        ]

    async def change(self, login: str, change: UserChange, *, entry: AuditEntry, mac: bytes) -> User | None:
        return await self._engine.transact(_change(login, change, entry, mac))

    async def remove(self, login: str, *, entry: AuditEntry, mac: bytes) -> bool:
        return await self._engine.transact(_remove(login, entry, mac))

    async def set_password(self, user_id: int, password: str, *, keep: int, entry: AuditEntry, mac: bytes) -> None:
        await self._engine.transact(_set_password(user_id, password, keep, entry, mac))

    async def rehash(self, user_id: int, *, old: str, new: str) -> None:
        await self._engine.transact(_rehash(user_id, old, new))

    async def begin_attempt(self, login: bytes, address: str, *, now: int) -> int | None:
        return await self._engine.transact(_begin_attempt(login, address, now))

    async def clear_attempts(self, login: bytes, address: str) -> None:
        await self._engine.transact(_clear_attempts(login, address))

    async def take_back_attempt(self, login: bytes, address: str) -> None:
        await self._engine.transact(_take_back_attempt(login, address))


def user_of(row: Row) -> User:
    id_, login, grants, disabled, added_at, password = row
    return User(id_, login, grants_of(grants) or (), bool(disabled), added_at, password)


def grants_of(text: str | None) -> tuple[Grant, ...] | None:
    return None if text is None else tuple(grant(*fields) for fields in json.loads(text))


def text_of_grants(grants: tuple[Grant, ...] | None) -> str | None:
    if grants is None:
        return None
    return json.dumps([[g.role.name.lower(), g.scope.tenant, g.scope.integration_type] for g in grants])


def _insert(user: NewUser, at: int) -> Transaction[int]:
    rows = yield statement(
        "/* accounts.add */ INSERT INTO users (login, password, grants, is_admin, disabled, added_at)"
        " VALUES ($1, $2, $3, $4, 0, $5) ON CONFLICT (login) DO NOTHING RETURNING id",
        user.login,
        user.password,
        text_of_grants(user.grants),
        int(has_admin(user.grants)),
        at,
    )
    if not rows:
        raise UserExists
    return int(rows[0][0])


def _add_first(user: NewUser, entry: AuditEntry, mac: bytes) -> Transaction[int | None]:
    began = yield statement(
        "/* accounts.claim_first */ UPDATE store SET first_user_at = $1 WHERE first_user_at IS NULL RETURNING one",
        entry.at,
    )
    if not began:
        return None
    user_id = yield from _insert(user, entry.at)
    yield from append_change("user-added", user_id, entry=entry, mac=mac)
    return user_id


def _add(user: NewUser, entry: AuditEntry, mac: bytes) -> Transaction[int]:
    # A user added on the host counts as well: nothing re-opens the door of the first one.
    yield statement(
        "/* accounts.note_first */ UPDATE store SET first_user_at = $1 WHERE first_user_at IS NULL", entry.at
    )
    user_id = yield from _insert(user, entry.at)
    yield from append_change("user-added", user_id, entry=entry, mac=mac)
    return user_id


def _change(login: str, change: UserChange, entry: AuditEntry, mac: bytes) -> Transaction[User | None]:
    user = yield from _locked(login)
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
    yield from _must_leave_an_admin(user, after=changed)
    yield statement(
        "/* accounts.change */ UPDATE users SET grants = $2, is_admin = $3, disabled = $4, password = $5 WHERE id = $1",
        user.id,
        text_of_grants(changed.grants),
        int(has_admin(changed.grants)),
        int(changed.is_disabled),
        changed.password,
    )
    if change.password is not None or changed.is_disabled:
        yield statement("/* accounts.end_sessions */ DELETE FROM tokens WHERE user_id = $1 AND is_session = 1", user.id)
    yield from append_change("user-changed", user.id, entry=entry, mac=mac)
    return changed


def _remove(login: str, entry: AuditEntry, mac: bytes) -> Transaction[bool]:
    user = yield from _locked(login)
    if user is None:
        return False
    yield from _must_leave_an_admin(user, after=None)
    yield statement("/* accounts.remove_tokens */ DELETE FROM tokens WHERE user_id = $1", user.id)
    yield statement("/* accounts.remove */ DELETE FROM users WHERE id = $1", user.id)
    yield from append_change("user-removed", user.id, entry=entry, mac=mac)
    return True


def _locked(login: str) -> Transaction[User | None]:
    yield Lock("users")
    rows = yield statement(f"/* accounts.read_to_change */ SELECT {COLUMNS} FROM users WHERE login = $1", login)
    return user_of(rows[0]) if rows else None


def _must_leave_an_admin(before: User, *, after: User | None) -> Transaction[None]:
    if not before.keeps_admin or (after is not None and after.keeps_admin):
        return
    others = yield statement(
        "/* accounts.other_admins */ "
        "SELECT 1 FROM users WHERE id <> $1 AND is_admin = 1 AND disabled = 0 AND password IS NOT NULL LIMIT 1",
        before.id,
    )
    if not others:
        raise LastAdmin


def _set_password(user_id: int, password: str, keep: int, entry: AuditEntry, mac: bytes) -> Transaction[None]:
    yield Lock("users")
    yield statement("/* accounts.set_password */ UPDATE users SET password = $2 WHERE id = $1", user_id, password)
    yield statement(
        "/* accounts.end_other_sessions */ DELETE FROM tokens WHERE user_id = $1 AND is_session = 1 AND id <> $2",
        user_id,
        keep,
    )
    yield from append_change("user-changed", user_id, entry=entry, mac=mac)


def _rehash(user_id: int, old: str, new: str) -> Transaction[None]:
    yield statement(
        "/* accounts.rehash */ UPDATE users SET password = $3 WHERE id = $1 AND password = $2", user_id, old, new
    )


def _begin_attempt(login: bytes, address: str, now: int) -> Transaction[int | None]:
    """Counted before the password is looked at, so that a burst of guesses cannot outrun the count."""
    yield Lock("login " + login.hex())
    since = now - WINDOW_SECONDS * SECOND
    yield statement("/* attempts.forget_old */ DELETE FROM login_attempts WHERE at < $1", since)
    rows = yield statement(
        "/* attempts.read */ SELECT address, at FROM login_attempts WHERE login = $1 ORDER BY at DESC LIMIT $2",
        login,
        MAX_FROM_ANYWHERE,
    )
    here = [at for known, at in rows if known == address][:MAX_FROM_ONE_ADDRESS]
    free_at = [
        times[-1] + WINDOW_SECONDS * SECOND
        for times, most in ((here, MAX_FROM_ONE_ADDRESS), ([at for _, at in rows], MAX_FROM_ANYWHERE))
        if len(times) >= most
    ]
    if free_at:
        return max(1, int((max(free_at) - now) // SECOND) + 1)
    yield statement(
        "/* attempts.add */ INSERT INTO login_attempts (login, address, at) VALUES ($1, $2, $3)", login, address, now
    )
    return None


def _clear_attempts(login: bytes, address: str) -> Transaction[None]:
    yield statement("/* attempts.clear */ DELETE FROM login_attempts WHERE login = $1 AND address = $2", login, address)


def _take_back_attempt(login: bytes, address: str) -> Transaction[None]:
    yield statement(
        "/* attempts.take_back */ "
        "DELETE FROM login_attempts WHERE id = (SELECT max(id) FROM login_attempts WHERE login = $1 AND address = $2)",
        login,
        address,
    )
