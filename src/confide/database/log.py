"""Append change rows and signed audit entries in the caller's transaction. Every write uses this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from confide.audit.model import EntryDraft, RowState, SignedEntry
from confide.database.engine import AppendChange, Engine, Statement, T, Transaction
from confide.database.rows import insert_into, list_columns, list_placeholders
from confide.database.signed_rows import name_row


class EntryRow(NamedTuple):
    """A row of the table `audit`, without the change that it belongs to."""

    at: int
    action: str
    outcome: str
    actor: int | None
    token_id: int | None
    address: str | None
    request_id: str | None
    tenant: str | None
    integration_type: str | None
    version: int | None
    subject: str | None
    digest: bytes | None
    mac: bytes


class ChangeRow(NamedTuple):
    """A row of the table `changes` that is not a version of a config."""

    kind: str
    subject: int | None
    saved_by: int | None
    saved_at: int


INSERT_AUDIT = f"""/* audits.note */
    INSERT INTO audit ({list_columns(EntryRow)}, change_id)
    VALUES ({list_placeholders(EntryRow)}, ${len(EntryRow._fields) + 1})
"""
_INSERT_CHANGE = f"/* changes.append */ {insert_into('changes', ChangeRow)} RETURNING id"


def describe_row(table: str, row: Any, *, until: int | None = None) -> RowState:
    """Describe a signed row, a NamedTuple of all columns, for the audit entry of its change."""
    return RowState(table, name_row(table, row._asdict()).key, row.counter, until)


async def transact_with_entry(engine: Engine, audit: EntryDraft, work: Transaction[T]) -> T:
    """Run a transaction that stores an audit entry. Give up the number of the entry if the transaction fails."""
    with giving_up_on_failure(audit):
        return await engine.transact(work)


@contextmanager
def giving_up_on_failure(audit: EntryDraft) -> Iterator[None]:
    """Give up the number of an entry if the body raises an error."""
    try:
        yield
    except BaseException:
        audit.give_up()
        raise


def build_entry_row(audit: SignedEntry) -> EntryRow:
    entry = audit.entry
    tenant, integration_type = entry.key or (None, None)
    return EntryRow(
        entry.at,
        entry.action,
        entry.outcome,
        entry.actor,
        entry.token_id,
        entry.address,
        entry.request_id,
        tenant,
        integration_type,
        entry.version,
        entry.subject,
        entry.digest,
        audit.mac,
    )


def insert_audit(audit: SignedEntry, *, change_id: int | None) -> Statement:
    """Build the statement that inserts an entry, with the change that it belongs to."""
    return Statement(INSERT_AUDIT, (*build_entry_row(audit), change_id))


def append_change(
    kind: str, subject: int | None, *, audit: EntryDraft, rows: Sequence[RowState] = ()
) -> Transaction[None]:
    """Append a change that is not a version of a config, with its audit entry, which names the changed rows."""
    row = ChangeRow(kind, subject, audit.entry.actor, audit.entry.at)
    signed = audit.sign(rows)
    ((change_id,),) = yield AppendChange(_INSERT_CHANGE, row, signed.mac)
    yield insert_audit(signed, change_id=change_id)
