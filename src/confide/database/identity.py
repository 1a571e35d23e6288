"""The identity of a database: its epoch, which a move, a restore or a loss of commits ends."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from confide.audit.model import EpochRecord, SignedEntry
from confide.caching.stamps import EVERYTHING, SlotChange
from confide.changes.model import Position
from confide.database.engine import Lock, TableLock, Transaction, statement
from confide.database.errors import UnsignedStore
from confide.database.log import insert_audit
from confide.database.model import EpochStatus
from confide.database.rows import insert_into
from confide.database.signed_rows import RowSigner, select_rows, update_row
from confide.epoch import Epoch


class StoreRow(NamedTuple):
    """The only row of the table `store`."""

    one: int
    epoch: str
    home: str
    began_at: int
    first_user_at: int | None
    begins_xid: int
    begins_id: int
    epoch_number: int
    signed_at: int | None = None
    counter: int | None = None
    mac: bytes | None = None


READ_EPOCH = "/* store.epoch */ SELECT epoch, epoch_number FROM store"
STORE_ROW = select_rows("store", StoreRow)
INSERT_STORE = f"/* store.begin */ {insert_into('store', StoreRow)}"
UPDATE_STORE = f"/* store.change */ UPDATE {update_row('store', StoreRow)}"
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


def lock_store() -> Transaction[StoreRow]:
    """Lock the row of the store for a change, and return it. The caller verifies it."""
    yield Lock("home")
    rows = yield statement(f"/* store.read_to_change */ SELECT {STORE_ROW}")
    return StoreRow(*rows[0])


def require_believed(rows: RowSigner, store: StoreRow) -> None:
    """Raise `UnsignedStore` if the row of the store was altered."""
    if not rows.is_believed("store", store):
        raise UnsignedStore("The row of the store was altered.")


def determine_epoch(
    location: str, rows: RowSigner, *, now: int, has_xid: bool, chain_audit_entries: Callable[[], Transaction[None]]
) -> Transaction[EpochStatus]:
    """Return the epoch. Begin a new one if the location differs: then the database was restored or copied.

    Clients may know positions that a restored database does not have. A new epoch invalidates all positions. Raises
    `UnsignedStore` if the row of the store is missing or was altered.
    """
    yield Lock("home")
    found = yield statement(f"/* store.home */ SELECT {STORE_ROW}")
    if not found:
        if rows.is_enforced:
            raise UnsignedStore("The row of the store is missing.")
        epoch = create_epoch(1)
        row = StoreRow(1, epoch.id, location, now, None, 0, 0, epoch.number)
        yield statement(INSERT_STORE, *rows.sign("store", row))
        return EpochStatus(epoch, is_new_epoch=False)
    store = StoreRow(*found[0])
    require_believed(rows, store)
    if store.home == location:
        return EpochStatus(Epoch(store.epoch, store.epoch_number), is_new_epoch=False)
    epoch = yield from begin_epoch(location, rows, now=now, has_xid=has_xid, chain_audit_entries=chain_audit_entries)
    return EpochStatus(epoch, is_new_epoch=True)


def begin_epoch(
    location: str, rows: RowSigner, *, now: int, has_xid: bool, chain_audit_entries: Callable[[], Transaction[None]]
) -> Transaction[Epoch]:
    """Begin a new epoch after a move or a restore, and return it. All sessions end.

    On PostgreSQL, transaction IDs in positions become 0, because they belong to another cluster.
    """
    yield SlotChange(EVERYTHING)
    store = yield from lock_store()
    require_believed(rows, store)
    yield from chain_audit_entries()
    if has_xid:
        yield statement("/* store.restart_changes */ UPDATE changes SET xid = '0'")
        yield statement("/* audits.restart */ UPDATE audit SET xid = '0'")
        store = store._replace(begins_xid=0)
    yield statement(END_SESSIONS)
    epoch = create_epoch(store.epoch_number + 1)
    new = rows.sign("store", store, epoch=epoch.id, epoch_number=epoch.number, home=location, began_at=now)
    yield statement(UPDATE_STORE, *new)
    return epoch


def begin_epoch_after_loss(
    loss: Loss, found: Epoch, rows: RowSigner, *, now: int, has_xid: bool, sign: EntrySigner
) -> Transaction[Epoch]:
    """Begin a new epoch because commits were lost, unless another process has ended the epoch `found`.

    All sessions end, because a logout can be lost. Returns the epoch that the database then has. Transaction IDs stay
    valid, because this is the same cluster.
    """
    store = yield from lock_store()
    current = Epoch(store.epoch, store.epoch_number)
    if current != found:
        return current
    require_believed(rows, store)
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
    new = rows.sign("store", store, epoch=epoch.id, epoch_number=epoch.number, began_at=now)
    yield statement(UPDATE_STORE, *new)
    return epoch


def create_epoch(number: int) -> Epoch:
    return Epoch(secrets.token_hex(8), number)
