"""The identity of a database: its epoch, which a move or a restore ends."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from confide.database.engine import Lock, Transaction, statement
from confide.database.model import EpochStatus
from confide.epoch import Epoch

READ_EPOCH = "/* store.epoch */ SELECT epoch, epoch_number FROM store"
END_SESSIONS = "/* tokens.end_sessions */ DELETE FROM tokens WHERE is_session = 1"


def determine_epoch(
    location: str, *, now: int, has_xid: bool, chain_audit_entries: Callable[[], Transaction[None]]
) -> Transaction[EpochStatus]:
    """Return the epoch. Begin a new one if the location differs: then the database was restored or copied.

    Clients may know positions that a restored database does not have. A new epoch invalidates all positions.
    """
    yield Lock("home")
    rows = yield statement("/* store.home */ SELECT epoch, epoch_number, home FROM store")
    if not rows:
        epoch = create_epoch(1)
        yield statement(
            "/* store.begin */ INSERT INTO store (one, epoch, home, began_at) VALUES (1, $1, $2, $3)",
            epoch.id,
            location,
            now,
        )
        return EpochStatus(epoch, is_new_epoch=False)
    *current, known_location = rows[0]
    epoch = Epoch(*current)
    if known_location == location:
        return EpochStatus(epoch, is_new_epoch=False)
    epoch = yield from begin_epoch(location, now=now, has_xid=has_xid, chain_audit_entries=chain_audit_entries)
    return EpochStatus(epoch, is_new_epoch=True)


def begin_epoch(
    location: str, *, now: int, has_xid: bool, chain_audit_entries: Callable[[], Transaction[None]]
) -> Transaction[Epoch]:
    """Begin a new epoch after a move or a restore, and return it. All sessions end.

    On PostgreSQL, transaction IDs in positions become 0, because they belong to another cluster.
    """
    yield from chain_audit_entries()
    if has_xid:
        yield statement("/* store.restart_changes */ UPDATE changes SET xid = '0'")
        yield statement("/* audits.restart */ UPDATE audit SET xid = '0'")
        yield statement("/* store.restart_log */ UPDATE store SET begins_xid = 0")
    yield statement(END_SESSIONS)
    ((number,),) = yield statement("/* store.epoch_number */ SELECT epoch_number FROM store")
    epoch = create_epoch(number + 1)
    yield statement(
        "/* store.begin_epoch */ UPDATE store SET epoch = $1, epoch_number = $2, home = $3, began_at = $4",
        *epoch,
        location,
        now,
    )
    return epoch


def create_epoch(number: int) -> Epoch:
    return Epoch(secrets.token_hex(8), number)
