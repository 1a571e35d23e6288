"""The epoch of a store and the identity of its home: whether this is the life it had before."""

from __future__ import annotations

import secrets

from confide.storage.transactions import Lock, Transaction, statement


def settle(home: str, *, now: int, has_xid: bool) -> Transaction[tuple[str, bool]]:
    """Return the epoch, and whether a new one began because the store lies elsewhere than it did.

    A store that was restored has positions that others still hold and, on PostgreSQL, transaction ids of
    another cluster: those become 0, sessions end, and the new epoch makes the old positions invalid.
    """
    yield Lock("home")
    rows = yield statement("SELECT epoch, home FROM store")
    if not rows:
        epoch = new_epoch()
        yield statement("INSERT INTO store (one, epoch, home, began_at) VALUES (1, $1, $2, $3)", epoch, home, now)
        return epoch, False
    epoch, known_home = rows[0]
    if known_home == home:
        return epoch, False
    return (yield from begin_anew(home, now=now, has_xid=has_xid)), True


def begin_anew(home: str, *, now: int, has_xid: bool) -> Transaction[str]:
    if has_xid:
        yield statement("UPDATE changes SET xid = '0'")
        yield statement("UPDATE audit SET xid = '0'")
    yield statement("DELETE FROM tokens WHERE is_session = 1")
    epoch = new_epoch()
    yield statement("UPDATE store SET epoch = $1, home = $2, began_at = $3", epoch, home, now)
    return epoch


def new_epoch() -> str:
    return secrets.token_hex(8)
