"""The stored audit log: entries, the links of the hash chain, and checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from confide.audit.chain import (
    FIRST_LINK,
    ChainedEntry,
    ChainPart,
    Checkpoint,
    RecordedLoss,
    Removal,
    compute_link,
    find_recorded_loss,
)
from confide.audit.model import BEGIN_EPOCH, AuditEntry, AuditFilter, EntryDraft, ListedEntry, encode_entry
from confide.changes.model import Position
from confide.database.engine import Engine, Lock, Many, Transaction, statement
from confide.database.log import insert_audit
from confide.database.model import Row
from confide.database.rows import insert_into, list_array_placeholders, list_columns
from confide.names import ConfigKey

NEWER_THAN_ANY = 2**63 - 1
# The number of entries that one transaction appends to the chain.
CHAIN_BATCH_SIZE = 500


class LinkRow(NamedTuple):
    """A row of the table `audit_links`."""

    number: int
    audit_id: int
    link: bytes


class CheckpointRow(NamedTuple):
    """A row of the table `checkpoints`."""

    number: int
    link: bytes
    at: int
    public_key: bytes
    signature: bytes


class RemovalRow(NamedTuple):
    """A row of the table `audit_removals`."""

    first_number: int
    last_number: int
    previous_link: bytes
    link: bytes
    at: int
    public_key: bytes
    signature: bytes


_HEAD = "a.at, a.action, a.outcome, a.actor, a.token_id, a.address, a.request_id"
_ENTRY = f"{_HEAD}, a.tenant, a.integration_type, a.version, a.subject, a.digest"
_HEAD_COLUMNS = 7
# The same columns with text as bytes, for rows that were altered to hold invalid UTF-8.
_TEXTS = ("action", "outcome", "address", "request_id", "tenant", "integration_type", "subject")
_COLUMNS = _ENTRY.replace("a.", "").split(", ")
_RAW_ENTRY = re.sub(rf"a\.({'|'.join(_TEXTS)})\b", r"CAST(a.\1 AS BLOB)", _ENTRY)

BEHIND = """/* audits.behind */
    SELECT coalesce((SELECT max(id) FROM audit), 0) <> coalesce((SELECT max(audit_id) FROM audit_links), 0)
"""
LAST = """/* audits.last */
    SELECT l.number, l.link, {xid}, a.id FROM audit_links l LEFT JOIN audit a ON a.id = l.audit_id
    ORDER BY l.number DESC LIMIT 1
"""
_UNCHAINED = "NOT EXISTS (SELECT 1 FROM audit_links l WHERE l.audit_id = a.id)"
# Only below the oldest running transaction: above it, an earlier entry may still be committed.
NEXT = {
    "sqlite": f"""/* audits.next */
        SELECT a.id, a.mac, {_RAW_ENTRY} FROM audit a
        WHERE $1 = 0 AND a.id > $2 AND {_UNCHAINED} ORDER BY a.id LIMIT $3
    """,
    "postgresql": f"""/* audits.next */
        SELECT a.id, a.mac, {_ENTRY} FROM audit a
        WHERE (a.xid, a.id) > ($1::text::xid8, $2::bigint) AND a.xid < pg_snapshot_xmin(pg_current_snapshot())
          AND {_UNCHAINED}
        ORDER BY a.xid, a.id LIMIT $3
    """,
}
# All entries outside the chain. A new epoch makes their positions meaningless.
REST = f"/* audits.rest */ SELECT a.id, a.mac, {{entry}} FROM audit a WHERE {_UNCHAINED} ORDER BY {{xid}} a.id LIMIT $1"
LINK_MANY = f"""/* audits.link_many */
    INSERT INTO audit_links ({list_columns(LinkRow)}) SELECT * FROM unnest({list_array_placeholders(LinkRow)})
"""
LINK_ONE = f"/* audits.link_one */ {insert_into('audit_links', LinkRow)}"
CHAIN = f"""/* audits.chain */
    SELECT l.number, l.link, a.mac, {_ENTRY} FROM audit_links l LEFT JOIN audit a ON a.id = l.audit_id
    WHERE l.number > $1 ORDER BY l.number LIMIT $2
"""
PAGE = f"""/* audits.page */
    SELECT l.number, u.login, {{xid}}, c.id, {_ENTRY}
    FROM audit_links l JOIN audit a ON a.id = l.audit_id
    LEFT JOIN users u ON u.id = a.actor AND u.removed_at IS NULL LEFT JOIN changes c ON c.id = a.change_id
    WHERE l.number < $1{{selection}} ORDER BY l.number DESC LIMIT $2
"""
CHECKPOINTS = f"""/* audits.checkpoints */
    SELECT {list_columns(CheckpointRow)} FROM checkpoints WHERE number > $1 ORDER BY number LIMIT $2
"""
REMOVALS = f"""/* audits.removals */
    SELECT {list_columns(RemovalRow)} FROM audit_removals
    WHERE last_number > $1 AND first_number <= $2 ORDER BY first_number LIMIT $3
"""
# The columns come first in an index, in which only such entries have no key and a version.
LOSSES = f"""/* audits.losses */
    SELECT coalesce(l.number, 0), a.mac, {_ENTRY} FROM audit a LEFT JOIN audit_links l ON l.audit_id = a.id
    WHERE a.tenant IS NULL AND a.integration_type IS NULL AND a.version IS NOT NULL AND a.action = $1
    ORDER BY a.id
"""
# The scope of such an entry is every integration type of the tenant.
DESTRUCTIONS = f"""/* audits.destructions */
    SELECT a.mac, {_ENTRY} FROM audit a
    WHERE a.tenant = $1 AND a.integration_type = '*' AND a.version IS NULL AND a.action = 'destroy tenant'
      AND a.outcome IN ('destroyed', 'destroyed again')
"""
INSERT_CHECKPOINT = f"""/* audits.keep */
    {insert_into("checkpoints", CheckpointRow)} ON CONFLICT (number) DO NOTHING RETURNING number
"""


class AuditStore:
    """Entries, links and checkpoints of the audit log."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._has_xid = engine.name == "postgresql"

    async def insert(self, audit: EntryDraft) -> None:
        """Insert an entry that belongs to no change."""
        to_insert = insert_audit(audit.sign(), change_id=None)
        try:
            await self._engine.execute(to_insert.sql, *to_insert.args)
        except BaseException:
            audit.give_up()
            raise

    async def has_unchained_entries(self) -> bool:
        ((has_entries,),) = await self._engine.query(BEHIND)
        return bool(has_entries)

    async def chain_next_entries(self) -> int:
        """Append the next entries to the chain in one transaction; return their number."""
        return await self._engine.transact(chain_next_entries(has_xid=self._has_xid))

    async def list_chained(self, *, after: int, limit: int) -> list[ChainPart]:
        """List the entries of the chain after a number, and the removals between them, in order."""
        rows = await self._read(CHAIN, after, limit)
        entries = [
            ChainedEntry(row[0], bytes(row[1]), None if row[2] is None else _encode_row(row[3:]), row[2] or b"")
            for row in rows
        ]
        until = entries[-1].number if len(entries) == limit else NEWER_THAN_ANY
        # After the entries, so that those which the retention removes meanwhile are covered and not missing.
        removals = await self.list_removals(after=after, until=until, limit=limit)
        if not removals:
            return list(entries)
        parts: list[ChainPart] = []
        pending = iter(removals)
        removal = next(pending, None)
        covered = after
        for entry in entries:
            while removal is not None and removal.first <= entry.number:
                parts.append(removal)
                covered, removal = removal.last, next(pending, None)
            if entry.number > covered:
                parts.append(entry)
        while removal is not None:
            parts.append(removal)
            removal = next(pending, None)
        return parts[:limit]

    async def list_removals(
        self, *, after: int = 0, until: int = NEWER_THAN_ANY, limit: int = NEWER_THAN_ANY
    ) -> list[Removal]:
        """List removals that end after a number and begin up to another one, in order."""
        rows = await self._engine.search(REMOVALS, after, until, limit)
        return [
            Removal(
                row.first_number, row.last_number, bytes(row.previous_link), bytes(row.link), row.at,
                bytes(row.public_key), bytes(row.signature),
            )
            for row in (RemovalRow(*found) for found in rows)
        ]  # fmt: skip

    async def read_last_number(self) -> int:
        ((number,),) = await self._engine.query(
            "/* audits.last_number */ SELECT coalesce(max(number), 0) FROM audit_links"
        )
        return int(number)

    async def read_link(self, number: int) -> bytes | None:
        rows = await self._engine.query("/* audits.link_of */ SELECT link FROM audit_links WHERE number = $1", number)
        return bytes(rows[0][0]) if rows else None

    async def read_links(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Read the links of these numbers. A number that the chain does not have is left out."""
        links = {number: await self.read_link(number) for number in numbers}
        return {number: link for number, link in links.items() if link is not None}

    async def list_losses(self, compute_mac: Callable[[bytes], bytes]) -> list[RecordedLoss]:
        """List the recorded losses of commits whose entries have a valid MAC."""
        rows = await self._read(LOSSES, BEGIN_EPOCH)
        entries = [ChainedEntry(row[0], b"", _encode_row(row[2:]), bytes(row[1])) for row in rows]
        found = [
            find_recorded_loss(one) for one in entries if one.entry is not None and compute_mac(one.entry) == one.mac
        ]
        return [loss for loss in found if loss is not None]

    async def has_destruction(self, tenant: str, compute_mac: Callable[[bytes], bytes]) -> bool:
        """Return whether the log has an entry about the destruction of a tenant with a valid MAC."""
        rows = await self._read(DESTRUCTIONS, tenant)
        return any(compute_mac(_encode_row(row[1:])) == bytes(row[0]) for row in rows)

    async def count_unchained(self, *, before: int) -> int:
        sql = f"/* audits.unlinked */ SELECT count(*) FROM audit a WHERE a.at < $1 AND {_UNCHAINED}"
        ((count,),) = await self._engine.search(sql, before)
        return int(count)

    async def list_entries(self, selection: AuditFilter, *, before: int | None, limit: int) -> list[ListedEntry]:
        args: list[Any] = [NEWER_THAN_ANY if before is None else before, limit]
        xid = "c.xid::text::bigint" if self._has_xid else "0"
        rows = await self._read(PAGE.format(xid=xid, selection=_build_conditions(selection, args)), *args)
        return [_read_entry(row) for row in rows]

    async def _read(self, sql: str, *args: Any) -> Sequence[Row]:
        """Read rows that end with an entry. Replace invalid UTF-8; the MAC of such an entry is invalid."""
        try:
            return await self._engine.search(sql, *args)
        except UnicodeDecodeError:
            rows = await self._engine.search(sql.replace(_ENTRY, _RAW_ENTRY), *args)
        return [(*row[: -len(_COLUMNS)], *_decode_text(row[-len(_COLUMNS) :])) for row in rows]

    async def list_checkpoints(self, *, after: int = 0, limit: int | None = None) -> list[Checkpoint]:
        rows = await self._engine.search(CHECKPOINTS, after, NEWER_THAN_ANY if limit is None else limit)
        return [
            Checkpoint(row.number, bytes(row.link), row.at, bytes(row.public_key), bytes(row.signature))
            for row in (CheckpointRow(*found) for found in rows)
        ]

    async def insert_checkpoint(self, checkpoint: Checkpoint) -> bool:
        """Insert a checkpoint. Return False if its number already has one."""
        return bool(
            await self._engine.execute(
                INSERT_CHECKPOINT,
                *CheckpointRow(
                    checkpoint.number, checkpoint.link, checkpoint.at, checkpoint.public_key, checkpoint.signature
                ),
            )
        )


def chain_next_entries(*, has_xid: bool, has_writers: bool = True) -> Transaction[int]:
    """Append the next entries to the chain; return their number.

    Without other writers, include entries above the oldest running transaction.
    """
    yield Lock("audit chain")
    rows = yield statement(LAST.format(xid="a.xid::text" if has_xid else "0"))
    number, link, xid, last = rows[0] if rows else (0, FIRST_LINK, None, None)
    if not has_writers:
        entry, order = (_ENTRY, "a.xid,") if has_xid else (_RAW_ENTRY, "")
        unchained = yield statement(REST.format(entry=entry, xid=order), CHAIN_BATCH_SIZE)
    else:
        place = (xid or "0") if has_xid else 0
        unchained = yield statement(NEXT["postgresql" if has_xid else "sqlite"], place, last or 0, CHAIN_BATCH_SIZE)
    links: list[LinkRow] = []
    link = bytes(link)
    for row in unchained:
        number += 1
        link = compute_link(link, number, _encode_row(row[2:] if has_xid else _decode_text(row[2:])), bytes(row[1]))
        links.append(LinkRow(number, row[0], link))
    if links and has_xid:
        yield statement(LINK_MANY, *zip(*links, strict=True))
    elif links:
        yield Many(LINK_ONE, links)
    return len(links)


def _encode_row(row: Sequence[Any]) -> bytes:
    """Encode the columns of an entry as its MAC covers them."""
    tenant, integration_type, version, subject, digest = row[_HEAD_COLUMNS:]
    key = None if tenant is None else (tenant, integration_type)
    return encode_entry(tuple(row[:_HEAD_COLUMNS]), key, version, subject, digest)


def _decode_text(entry: Row) -> list[Any]:
    """Decode an entry whose text columns were read as bytes."""
    return [
        bytes(value).decode(errors="replace") if column in _TEXTS and value is not None else value
        for column, value in zip(_COLUMNS, entry, strict=True)
    ]


def _read_entry(row: Row) -> ListedEntry:
    number, login, xid, change_id = row[:4]
    at, action, outcome, actor, token_id, address, request_id, tenant, type_, version, subject, digest = row[4:]
    key = None if tenant is None else ConfigKey(tenant, type_)
    entry = AuditEntry(
        at, action, outcome, actor, token_id, address, request_id, key=key, version=version, subject=subject,
        digest=digest,
    )  # fmt: skip
    return ListedEntry(number, entry, login, None if change_id is None else Position(xid, change_id))


def _build_conditions(selection: AuditFilter, args: list[Any]) -> str:
    """Build the SQL conditions of a selection. Append their values to the arguments."""
    parts = []
    for column, sign, value in (
        ("a.actor", "=", selection.actor),
        ("a.action", "=", selection.action),
        ("a.at", ">=", selection.since),
        ("a.at", "<", selection.until),
    ):
        if value is not None:
            args.append(value)
            parts.append(f" AND {column} {sign} ${len(args)}")
    if selection.scope is not None:
        at = len(args)
        low, high, type_low, type_high = selection.scope.find_bounds()
        args.extend((low, high, type_low, type_high))
        for column, first in (("a.tenant", at + 1), ("a.integration_type", at + 3)):
            # An entry about a pattern concerns each name that the pattern covers.
            is_covered = f"substr(${first}, 1, abs(length({column}) - 1)) || '*' = {column}"
            parts.append(f" AND ({column} BETWEEN ${first} AND ${first + 1} OR {is_covered})")
    return "".join(parts)


def chain_all_entries(*, has_xid: bool) -> Transaction[None]:
    """Append all entries to the chain, in the transaction that begins a new epoch. No other process may write."""
    while (yield from chain_next_entries(has_xid=has_xid, has_writers=False)):
        pass
