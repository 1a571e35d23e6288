"""The SQL of integration types."""

from __future__ import annotations

import json
from typing import NamedTuple

from confide import strict_json
from confide.audit.model import EntryDraft
from confide.caching.stamps import SlotChange, find_type_slot
from confide.crypto.errors import IntegrityBroken
from confide.database.engine import AppendChange, Engine, Transaction, statement
from confide.database.identity import READ_EPOCH
from confide.database.log import describe_row, insert_audit, transact_with_entry
from confide.database.rows import insert_into, list_columns, list_placeholders
from confide.database.signed_rows import RowSigner
from confide.epoch import CurrentEpoch, Epoch
from confide.integration_types.model import Mode, TypeKind, TypeVersion


class TypeRow(NamedTuple):
    """A row of the table `types`."""

    name: str
    version: int
    kind: str
    schema: str | None
    mode: str
    keep: int
    saved_by: int
    saved_at: int
    note: str | None
    counter: int | None = None
    mac: bytes | None = None

    @classmethod
    def from_value(cls, new: TypeVersion) -> TypeRow:
        schema = None if new.schema is None else strict_json.write(new.schema).decode()
        return cls(
            new.name,
            new.version,
            str(new.kind),
            schema,
            str(new.mode),
            new.keep,
            new.saved_by,
            new.saved_at,
            new.note,
        )


class TypeChangeRow(NamedTuple):
    """A row of the table `changes` about an integration type."""

    kind: str
    integration_type: str
    version: int
    saved_by: int
    saved_at: int
    note: str | None


READ = f"/* types.read */ SELECT {list_columns(TypeRow)} FROM types WHERE name = $1 ORDER BY version DESC LIMIT 1"
ALL = f"""/* types.all */
    SELECT {list_columns(TypeRow)} FROM types t
    WHERE version = (SELECT max(n.version) FROM types n WHERE n.name = t.name) AND kind = 'saved' ORDER BY name
"""
# Only in the epoch in which the change was planned.
APPEND = f"""/* types.append */
    INSERT INTO types ({list_columns(TypeRow)}) SELECT {list_placeholders(TypeRow)}
    WHERE (SELECT epoch FROM store) = ${len(TypeRow._fields) + 1}
    ON CONFLICT (name, version) DO NOTHING RETURNING version
"""
ALTERED = "The stored integration type was altered without Confide. Tell the operator."
APPEND_CHANGE = f"/* types.log */ {insert_into('changes', TypeChangeRow)} RETURNING id"


class IntegrationTypeStore:
    """Stores versions of integration types. The highest one is active."""

    def __init__(self, engine: Engine, rows: RowSigner, epoch: CurrentEpoch) -> None:
        self._engine = engine
        self._rows = rows
        self._epoch = epoch

    async def read(self, name: str) -> TypeVersion | None:
        """Read the active version, even if the type was removed.

        Raises `IntegrityBroken` if its row was altered, because neither it nor an earlier version can be used then.
        """
        rows = [TypeRow(*row) for row in await self._engine.query(READ, name)]
        if rows and not self._rows.is_believed("types", rows[0]):
            raise IntegrityBroken(ALTERED, retry_after_seconds=60)
        return _read_type(rows[0]) if rows else None

    async def list_all(self) -> list[TypeVersion]:
        """List the active versions of all types that were not removed, by name. Leave out altered ones."""
        rows = [TypeRow(*row) for row in await self._engine.query(ALL)]
        return [_read_type(row) for row in rows if self._rows.is_believed("types", row)]

    async def confirm(self, name: str) -> None:
        """Stamp a type before an answer confirms its version."""
        await self._engine.confirm(find_type_slot(name))

    async def append(self, new: TypeVersion, *, audit: EntryDraft, epoch: Epoch) -> bool:
        """Append a version with its change and audit entry.

        Return False if the version exists already, or if the database is in another epoch than the one in which the
        change was planned. Then this process adopts that epoch.
        """
        found = await transact_with_entry(self._engine, audit, _append(self._rows, new, audit, epoch))
        if found is not None:
            self._epoch.adopt(found)
        return found is None


def _read_type(found: TypeRow) -> TypeVersion:
    schema = None if found.schema is None else json.loads(found.schema)
    return TypeVersion(
        found.name,
        found.version,
        TypeKind(found.kind),
        schema,
        Mode(found.mode),
        found.keep,
        found.saved_by,
        found.saved_at,
        found.note,
    )


def _append(rows: RowSigner, new: TypeVersion, audit: EntryDraft, epoch: Epoch) -> Transaction[Epoch | None]:
    """Append a version, or return the current epoch if nothing was appended."""
    row = rows.sign("types", TypeRow.from_value(new))
    if not (yield statement(APPEND, *row, epoch.id)):
        ((*found,),) = yield statement(READ_EPOCH)
        return Epoch(*found)
    yield SlotChange(find_type_slot(new.name))
    change = TypeChangeRow("type-changed", new.name, new.version, new.saved_by, new.saved_at, new.note)
    signed = audit.sign([describe_row("types", row)])
    ((change_id,),) = yield AppendChange(APPEND_CHANGE, change, signed.mac)
    yield insert_audit(signed, change_id=change_id)
    return None
