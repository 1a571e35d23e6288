"""Sign the rows of an existing store, in batches, and then require that each row has a signature."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from confide.audit.model import EntryDraft
from confide.caching.stamps import EVERYTHING, SlotChange
from confide.database.database import HostEngine
from confide.database.engine import Lock, Many, Script, Transaction, statement
from confide.database.identity import STORE_ROW, UPDATE_STORE, StoreRow
from confide.database.log import describe_row, insert_audit
from confide.database.schema import list_tables
from confide.database.signed_rows import SIGNED_TABLES, RowName, RowSigner, name_row

BATCH_SIZE = 500
# The last step locks the tables. It gives up if another transaction, such as a backup, holds them for longer.
LOCK_TABLES = """
    SET LOCAL lock_timeout = '1s';
    LOCK TABLE users, tokens, types, keys, store IN ACCESS EXCLUSIVE MODE;
"""
MIGRATED_AT = "/* store.signed_schema */ SELECT applied_at FROM schema_migrations WHERE number = 4"
FILL = """/* store.fill */
    UPDATE {table} SET counter = coalesce(counter, 0), mac = coalesce(mac, $1) WHERE mac IS NULL OR counter IS NULL
"""
ADD_SIGNATURE = "/* store.sign_row */ UPDATE {table} SET counter = ${counter}, mac = ${mac} WHERE {unchanged}"


async def sign_in_batches(engine: HostEngine, rows: RowSigner) -> int:
    """Sign all rows without a valid MAC, each batch in a transaction of its own. Return their number."""
    count = 0
    for table in SIGNED_TABLES:
        last: tuple[Any, ...] | None = None
        while True:
            batch = await engine.transact_long(_sign_batch(rows, table, last))
            count += batch.signed
            if batch.last is None:
                break
            last = batch.last
    return count


class ScannedRow(NamedTuple):
    """A row of a signed table, its counter, and whether its MAC is valid."""

    name: RowName
    counter: int
    is_valid: bool


async def scan_rows(engine: HostEngine, rows: RowSigner) -> AsyncIterator[ScannedRow]:
    """Yield all rows of the signed tables."""
    for table in SIGNED_TABLES:
        last: tuple[Any, ...] | None = None
        while True:
            sql, args = _select_batch(table, last)
            found = [_to_dict(table, row) for row in await engine.search(sql, *args)]
            for row in found:
                yield ScannedRow(name_row(table, row), row["counter"] or 0, rows.is_valid(table, row))
            if len(found) < BATCH_SIZE:
                break
            last = _read_key(table, found[-1])


def seal(rows: RowSigner, *, engine: str, at: int, audit: EntryDraft | None) -> Transaction[None]:
    """Sign the rows that changed since, and require a signature of each row from now on, in one transaction.

    Records this in the row of the store and in the audit log.
    """
    yield Lock("home")
    if engine == "postgresql":
        yield Script(LOCK_TABLES)
    yield SlotChange(EVERYTHING)
    for table in SIGNED_TABLES:
        last: tuple[Any, ...] | None = None
        while True:
            batch = yield from _sign_batch(rows, table, last)
            if batch.last is None:
                break
            last = batch.last
    yield from require_signatures()
    found = yield statement(f"/* store.read_to_seal */ SELECT {STORE_ROW}")
    store = rows.sign("store", StoreRow(*found[0]), signed_at=at)
    yield statement(UPDATE_STORE, *store)
    if audit is not None:
        yield insert_audit(audit.sign([describe_row("store", store)]), change_id=None)


def require_signatures() -> Transaction[None]:
    """Make the columns NOT NULL, so that a process of an earlier release cannot add a row."""
    for table in SIGNED_TABLES:
        # An attacker may have removed a signature. An empty one is as invalid.
        yield statement(FILL.format(table=table), b"")
        for column in ("counter", "mac"):
            yield Script(f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL")


class _Batch(NamedTuple):
    """The number of signed rows, and the key to continue after. None at the end."""

    signed: int
    last: tuple[Any, ...] | None


def _sign_batch(rows: RowSigner, table: str, after: tuple[Any, ...] | None) -> Transaction[_Batch]:
    sql, args = _select_batch(table, after)
    found = [_to_dict(table, row) for row in (yield statement(sql, *args))]
    unsigned = [row for row in found if not rows.is_valid(table, row)]
    if unsigned:
        yield Many(_build_update(table), [_sign(rows, table, row) for row in unsigned])
    return _Batch(len(unsigned), _read_key(table, found[-1]) if len(found) == BATCH_SIZE else None)


def _sign(rows: RowSigner, table: str, row: dict[str, Any]) -> tuple[Any, ...]:
    counter = (row["counter"] or 0) + 1
    mac = rows.compute_mac(table, {**row, "counter": counter})
    return (*_read_key(table, row), counter, mac)


def _build_update(table: str) -> str:
    """Build the statement that signs a row. It changes no other column, so a concurrent change is not undone."""
    key = SIGNED_TABLES[table]
    unchanged = " AND ".join(f"{column} = ${number}" for number, column in enumerate(key, 1))
    return ADD_SIGNATURE.format(table=table, counter=len(key) + 1, mac=len(key) + 2, unchanged=unchanged)


def _select_batch(table: str, after: tuple[Any, ...] | None) -> tuple[str, tuple[Any, ...]]:
    key = SIGNED_TABLES[table]
    columns, order = ", ".join(list_tables()[table]), ", ".join(key)
    places = ", ".join(f"${number}" for number, _ in enumerate(key, 1))
    at = "" if after is None else f" WHERE ({order}) > ({places})"
    sql = f"/* store.signed_rows */ SELECT {columns} FROM {table}{at} ORDER BY {order} LIMIT {BATCH_SIZE}"
    return sql, after or ()


def _to_dict(table: str, row: Any) -> dict[str, Any]:
    return dict(zip(list_tables()[table], row, strict=True))


def _read_key(table: str, row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in SIGNED_TABLES[table])
