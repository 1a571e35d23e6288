"""Tokens, in the same words on both engines."""

from __future__ import annotations

from confide.audit.model import AuditEntry
from confide.database.engine import Engine, Lock, Transaction, statement
from confide.database.log import append_change
from confide.database.model import Row
from confide.identity.model import NewToken, Token, User
from confide.identity.user_store import grants_of, text_of_grants, user_of

READ = """/* tokens.read */
    SELECT t.id, t.user_id, u.login, t.is_session, t.label, t.grants, t.made_at, t.expires_at,
           u.id, u.login, u.grants, u.disabled, u.added_at, u.password
    FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.hash = $1
"""
LIST = """/* tokens.list */
    SELECT t.id, t.user_id, u.login, t.is_session, t.label, t.grants, t.made_at, t.expires_at
    FROM tokens t JOIN users u ON u.id = t.user_id
"""
_TOKEN_COLUMNS = 8


class TokenStore:
    """Tokens of users."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def read(self, token_hash: bytes) -> tuple[Token, User] | None:
        rows = await self._engine.rows(READ, token_hash)
        if not rows:
            return None
        return _token_of(rows[0][:_TOKEN_COLUMNS]), user_of(rows[0][_TOKEN_COLUMNS:])

    async def add(self, token: NewToken, *, made_at: int, entry: AuditEntry, mac: bytes) -> int | None:
        return await self._engine.transact(_add(token, made_at, entry, mac))

    async def all(self, user_id: int | None) -> list[Token]:
        if user_id is None:
            rows = await self._engine.rows(f"{LIST} ORDER BY t.id")
        else:
            rows = await self._engine.rows(f"{LIST} WHERE t.user_id = $1 ORDER BY t.id", user_id)
        return [_token_of(row) for row in rows]

    async def remove(self, token_id: int, *, of: int | None, entry: AuditEntry, mac: bytes) -> bool:
        return await self._engine.transact(_remove(token_id, of, entry, mac))

    async def forget_expired(self, *, before: int) -> None:
        await self._engine.transact(_forget_expired(before))


def _token_of(row: Row) -> Token:
    id_, user_id, login, is_session, label, grants, made_at, expires_at = row
    return Token(id_, user_id, login, bool(is_session), label, grants_of(grants), made_at, expires_at)


def _add(token: NewToken, made_at: int, entry: AuditEntry, mac: bytes) -> Transaction[int | None]:
    # Whoever changes a user holds this lock: a session must not outlive a password that was changed meanwhile.
    yield Lock("users")
    added = yield statement(
        "/* tokens.add */ INSERT INTO tokens (hash, user_id, is_session, label, grants, made_at, expires_at)"
        " SELECT $1, u.id, CAST($3 AS BIGINT), $4, $5, $6, $7 FROM users u WHERE u.id = $2"
        " AND (CAST($3 AS BIGINT) = 0 OR (u.disabled = 0 AND u.password = $8)) RETURNING id",
        token.hash,
        token.user_id,
        int(token.is_session),
        token.label,
        text_of_grants(token.grants),
        made_at,
        token.expires_at,
        token.begun_with,
    )
    if not added:
        return None
    yield from append_change("token-added", added[0][0], entry=entry, mac=mac)
    return int(added[0][0])


def _remove(token_id: int, of: int | None, entry: AuditEntry, mac: bytes) -> Transaction[bool]:
    if of is None:
        removed = yield statement("/* tokens.remove */ DELETE FROM tokens WHERE id = $1 RETURNING id", token_id)
    else:
        removed = yield statement(
            "/* tokens.remove_own */ DELETE FROM tokens WHERE id = $1 AND user_id = $2 RETURNING id", token_id, of
        )
    if not removed:
        return False
    yield from append_change("token-revoked", token_id, entry=entry, mac=mac)
    return True


def _forget_expired(before: int) -> Transaction[None]:
    yield statement("/* tokens.forget_expired */ DELETE FROM tokens WHERE expires_at < $1", before)
