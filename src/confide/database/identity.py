"""The epoch of a store and the identity of its home: whether this is the life it had before."""

from __future__ import annotations

import secrets

from confide.audit.store import link_next
from confide.database.engine import Lock, Transaction, statement


def settle(home: str, *, now: int, has_xid: bool) -> Transaction[tuple[str, bool]]:
    """Return the epoch, and whether a new one began because the store lies elsewhere than it did.

    A store that was restored has positions that others still hold and, on PostgreSQL, transaction ids of
    another cluster: those become 0, sessions end, and the new epoch makes the old positions invalid.
    """
    yield Lock("home")
    rows = yield statement("/* store.home */ SELECT epoch, home FROM store")
    if not rows:
        epoch = new_epoch()
        yield statement(
            "/* store.begin */ INSERT INTO store (one, epoch, home, began_at) VALUES (1, $1, $2, $3)", epoch, home, now
        )
        return epoch, False
    epoch, known_home = rows[0]
    if known_home == home:
        return epoch, False
    return (yield from begin_anew(home, now=now, has_xid=has_xid)), True


def begin_anew(home: str, *, now: int, has_xid: bool) -> Transaction[str]:
    # Whatever is not linked yet would lose its place among the others with its transaction's number.
    while (yield from link_next(has_xid=has_xid, is_whole=True)):
        pass
    if has_xid:
        yield statement("/* store.restart_changes */ UPDATE changes SET xid = '0'")
        yield statement("/* audits.restart */ UPDATE audit SET xid = '0'")
        yield statement("/* store.restart_log */ UPDATE store SET begins_xid = 0")
    yield statement("/* tokens.end_sessions */ DELETE FROM tokens WHERE is_session = 1")
    epoch = new_epoch()
    yield statement("/* store.begin_epoch */ UPDATE store SET epoch = $1, home = $2, began_at = $3", epoch, home, now)
    return epoch


def new_epoch() -> str:
    return secrets.token_hex(8)
