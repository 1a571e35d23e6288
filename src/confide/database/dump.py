"""Dump all tables in one snapshot, and load them into an empty database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import groupby, islice

from confide.database.engine import Engine, Many, Transaction, statement
from confide.database.identity import begin_epoch
from confide.database.model import Row

# The columns of each table, in the order of foreign keys. Login attempts are not backed up.
TABLES = {
    "store": ("one", "epoch", "home", "began_at", "first_user_at", "begins_xid", "begins_id"),
    "keys": ("id", "purpose", "tenant", "master_key_id", "wrapped", "made_at"),
    "users": ("id", "login", "password", "grants", "is_admin", "disabled", "added_at"),
    "tokens": ("id", "hash", "user_id", "is_session", "label", "grants", "made_at", "expires_at"),
    "changes": (
        "id",
        "kind",
        "tenant",
        "integration_type",
        "version",
        "subject",
        "key_id",
        "body",
        "saved_by",
        "saved_at",
        "note",
    ),
    "audit": (
        "id",
        "at",
        "action",
        "outcome",
        "actor",
        "token_id",
        "address",
        "request_id",
        "tenant",
        "integration_type",
        "version",
        "subject",
        "digest",
        "mac",
        "change_id",
    ),
    "audit_links": ("number", "audit_id", "link"),
    "checkpoints": ("number", "link", "at", "public_key", "signature"),
    "usage": ("tenant", "integration_type", "token_id", "user_id", "label", "last_read_at", "reads"),
    "types": ("name", "version", "kind", "schema", "mode", "keep", "saved_by", "saved_at", "note"),
    "replays": ("user_id", "route", "name", "mac", "version", "outcome", "saved_at"),
}
_NUMBERED = ("users", "tokens", "changes", "audit")
_BATCH_SIZE = 500


async def dump(engine: Engine) -> AsyncIterator[tuple[str, Row]]:
    """Read every row of every table in one snapshot, with the name of its table."""
    tables = list(TABLES)
    # By primary key, so that the change log is in the order of its IDs.
    statements = [f"/* store.dump */ SELECT {', '.join(TABLES[table])} FROM {table} ORDER BY 1" for table in tables]
    async for number, rows in engine.stream(statements):
        for row in rows:
            yield tables[number], tuple(row)


def load(
    rows: Iterator[tuple[str, Row]],
    location: str,
    *,
    now: int,
    engine: str,
    chain_audit_entries: Callable[[], Transaction[None]],
) -> Transaction[str]:
    """Load rows into an empty database and begin a new epoch, in one transaction. Returns the epoch."""
    yield statement("/* store.empty */ DELETE FROM store")
    for table, group in groupby(rows, key=lambda pair: pair[0]):
        columns = TABLES[table]
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        sql = f"/* store.load */ INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
        while batch := [row for _, row in islice(group, _BATCH_SIZE)]:
            yield Many(sql, batch)
    if engine == "postgres":
        for table in _NUMBERED:
            yield statement(
                "/* store.restart_ids */ "
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), GREATEST((SELECT max(id) FROM {table}), 1))"
            )
    return (
        yield from begin_epoch(location, now=now, has_xid=engine == "postgres", chain_audit_entries=chain_audit_entries)
    )


IS_EMPTY = """/* store.is_empty */
    SELECT NOT EXISTS (SELECT 1 FROM changes) AND NOT EXISTS (SELECT 1 FROM users)
       AND NOT EXISTS (SELECT 1 FROM keys) AND NOT EXISTS (SELECT 1 FROM audit)
"""
