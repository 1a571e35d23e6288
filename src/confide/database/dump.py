"""Dump all tables in one snapshot, and load them into an empty database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import groupby, islice

from confide.database.engine import Engine, Many, Transaction, statement
from confide.database.identity import STORE_ROW, StoreRow, begin_epoch
from confide.database.model import TableRow
from confide.database.schema import list_tables
from confide.database.signed_rows import RowSigner
from confide.epoch import Epoch

# Tables without a use after a restore. Every other table of the schema is backed up.
NOT_BACKED_UP = frozenset({"login_attempts", "turns"})
_NUMBERED = ("users", "tokens", "changes", "audit")
_BATCH_SIZE = 500


def list_backed_up_tables(schema_number: int | None = None) -> dict[str, tuple[str, ...]]:
    """Return the columns of each table that a backup of a schema holds, in the order of the migrations."""
    return {name: columns for name, columns in list_tables(schema_number).items() if name not in NOT_BACKED_UP}


async def dump(engine: Engine) -> AsyncIterator[TableRow]:
    """Read every row of every backed-up table in one snapshot."""
    columns = list_backed_up_tables()
    tables = list(columns)
    # By primary key, so that the change log is in the order of its IDs.
    statements = [f"/* store.dump */ SELECT {', '.join(columns[table])} FROM {table} ORDER BY 1" for table in tables]
    async for batch in engine.stream(statements):
        for row in batch.rows:
            yield TableRow(tables[batch.query_index], tuple(row))


def load(
    rows: Iterator[TableRow],
    location: str,
    signer: RowSigner,
    *,
    now: int,
    engine: str,
    chain_audit_entries: Callable[[], Transaction[None]],
) -> Transaction[Epoch]:
    """Load rows into an empty database and begin a new epoch, in one transaction. Returns the epoch."""
    tables = list_backed_up_tables()
    yield statement("/* store.empty */ DELETE FROM store")
    for table, group in groupby(rows, key=lambda table_row: table_row.table):
        while batch := [row for _, row in islice(group, _BATCH_SIZE)]:
            # Rows of an older schema lack the columns that later migrations added at the end, with defaults.
            columns = tables[table][: len(batch[0])]
            places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
            yield Many(f"/* store.load */ INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", batch)
    if engine == "postgresql":
        for table in _NUMBERED:
            yield statement(
                "/* store.restart_ids */ "
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), GREATEST((SELECT max(id) FROM {table}), 1))"
            )
    found = [StoreRow(*row) for row in (yield statement(f"/* store.loaded */ SELECT {STORE_ROW}"))]
    epoch = yield from begin_epoch(
        location, signer, now=now, has_xid=engine == "postgresql", chain_audit_entries=chain_audit_entries
    )
    if any(row.signed_at is not None and not signer.is_valid("store", row._asdict()) for row in found):
        # The new epoch must not sign what an attacker changed before the backup.
        yield statement("/* store.unsign */ UPDATE store SET mac = $1", b"")
    return epoch


IS_EMPTY = """/* store.is_empty */
    SELECT NOT EXISTS (SELECT 1 FROM changes) AND NOT EXISTS (SELECT 1 FROM users)
       AND NOT EXISTS (SELECT 1 FROM keys) AND NOT EXISTS (SELECT 1 FROM audit)
"""
