"""The identity of a database: its epoch, and whether the database is where it was."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from confide.database.engine import Lock, Transaction, statement
from confide.database.model import Settled


def settle(
    location: str, *, now: int, has_xid: bool, chain_audit_entries: Callable[[], Transaction[None]]
) -> Transaction[Settled]:
    """Return the epoch. A new one begins if the database is not where it was: then it was restored or copied.

    Positions of a restored database are still known to clients and, on PostgreSQL, contain transaction IDs of another
    cluster. These become 0, sessions end, and the new epoch invalidates the old positions.
    """
    yield Lock("home")
    rows = yield statement("/* store.home */ SELECT epoch, home FROM store")
    if not rows:
        epoch = new_epoch()
        yield statement(
            "/* store.begin */ INSERT INTO store (one, epoch, home, began_at) VALUES (1, $1, $2, $3)",
            epoch,
            location,
            now,
        )
        return Settled(epoch, is_new_epoch=False)
    epoch, known_location = rows[0]
    if known_location == location:
        return Settled(epoch, is_new_epoch=False)
    epoch = yield from begin_anew(location, now=now, has_xid=has_xid, chain_audit_entries=chain_audit_entries)
    return Settled(epoch, is_new_epoch=True)


def begin_anew(
    location: str, *, now: int, has_xid: bool, chain_audit_entries: Callable[[], Transaction[None]]
) -> Transaction[str]:
    """Begin a new epoch and return it."""
    yield from chain_audit_entries()
    if has_xid:
        yield statement("/* store.restart_changes */ UPDATE changes SET xid = '0'")
        yield statement("/* audits.restart */ UPDATE audit SET xid = '0'")
        yield statement("/* store.restart_log */ UPDATE store SET begins_xid = 0")
    yield statement("/* tokens.end_sessions */ DELETE FROM tokens WHERE is_session = 1")
    epoch = new_epoch()
    yield statement(
        "/* store.begin_epoch */ UPDATE store SET epoch = $1, home = $2, began_at = $3", epoch, location, now
    )
    return epoch


def new_epoch() -> str:
    return secrets.token_hex(8)
