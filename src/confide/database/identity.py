"""The identity of a database: its epoch, which a move, a restore or a loss of commits ends."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from confide.audit.model import EpochRecord, SignedEntry
from confide.caching.stamps import EVERYTHING, SlotChange
from confide.changes.model import Position
from confide.database.engine import Lock, TableLock, Transaction, statement
from confide.database.log import insert_audit
from confide.database.model import EpochStatus
from confide.epoch import Epoch

READ_EPOCH = "/* store.epoch */ SELECT epoch, epoch_number FROM store"
END_SESSIONS = "/* tokens.end_sessions */ DELETE FROM tokens WHERE is_session = 1"
LAST_CHECKPOINT = "/* audits.last_signed */ SELECT coalesce(max(number), 0) FROM checkpoints WHERE number < $1"
LAST_POSITION = "/* store.last_position */ SELECT {xid}, id FROM changes ORDER BY {order} DESC LIMIT 1"
MAX_NUMBER = 2**63 - 1

# Signs the audit entry of a new epoch, given the epoch and the subject.
EntrySigner: TypeAlias = Callable[[Epoch, str], SignedEntry]


class Loss(NamedTuple):
    """Commits that were seen and that the database does not have."""

    positions: tuple[Position, ...]
    # The number of a checkpoint of the audit hash chain.
    checkpoint: int | None
    # The next epoch gets at least this number, because the begin of an epoch can be lost too.
    min_number: int


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
    yield SlotChange(EVERYTHING)
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


def begin_epoch_after_loss(
    loss: Loss, found: Epoch, *, now: int, has_xid: bool, sign: EntrySigner
) -> Transaction[Epoch]:
    """Begin a new epoch because commits were lost, unless another process has ended the epoch `found`.

    All sessions end, because a logout can be lost. Returns the epoch that the database then has. Transaction IDs stay
    valid, because this is the same cluster.
    """
    yield Lock("home")
    ((*current,),) = yield statement(READ_EPOCH)
    if Epoch(*current) != found:
        return Epoch(*current)
    yield SlotChange(EVERYTHING)
    # Saves that are running end first. Later ones find the new epoch.
    yield TableLock("changes")
    yield Lock("audit chain")
    ((signed_number,),) = yield statement(LAST_CHECKPOINT, loss.checkpoint or MAX_NUMBER)
    xid, order = ("xid::text::bigint", "changes.xid DESC, id") if has_xid else ("0", "id")
    last = yield statement(LAST_POSITION.format(xid=xid, order=order))
    epoch = create_epoch(max(found.number + 1, loss.min_number))
    last_position = Position(*last[0]) if last else None
    record = EpochRecord(epoch.id, found.id, signed_number, last_position, loss.positions, loss.checkpoint)
    yield insert_audit(sign(epoch, record.format()), change_id=None)
    yield statement(END_SESSIONS)
    yield statement(
        "/* store.begin_epoch */ UPDATE store SET epoch = $1, epoch_number = $2, began_at = $3", *epoch, now
    )
    return epoch


def create_epoch(number: int) -> Epoch:
    return Epoch(secrets.token_hex(8), number)
