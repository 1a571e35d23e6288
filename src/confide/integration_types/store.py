"""Versions of integration types, in the same words on both engines."""

from __future__ import annotations

import json

from confide import strict_json
from confide.audit.model import AuditEntry
from confide.database.engine import Engine, Statement, Transaction, statement
from confide.database.log import AUDIT, audit_values
from confide.database.model import Row
from confide.integration_types.model import Mode, TypeKind, TypeVersion

COLUMNS = "name, version, kind, schema, mode, keep, saved_by, saved_at, note"
READ = f"/* types.read */ SELECT {COLUMNS} FROM types WHERE name = $1 ORDER BY version DESC LIMIT 1"
ALL = f"""/* types.all */
    SELECT {COLUMNS} FROM types t
    WHERE version = (SELECT max(n.version) FROM types n WHERE n.name = t.name) AND kind = 'saved' ORDER BY name
"""
APPEND = f"""/* types.append */
    INSERT INTO types ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (name, version) DO NOTHING RETURNING version
"""
LOG = """/* types.log */
    INSERT INTO changes (kind, integration_type, version, saved_by, saved_at, note)
    VALUES ('type-changed', $1, $2, $3, $4, $5) RETURNING id
"""


class IntegrationTypeStore:
    """Types of the store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def read(self, name: str) -> TypeVersion | None:
        rows = await self._engine.rows(READ, name)
        return _type_of(rows[0]) if rows else None

    async def all(self) -> list[TypeVersion]:
        return [_type_of(row) for row in await self._engine.rows(ALL)]

    async def append(self, new: TypeVersion, *, entry: AuditEntry, mac: bytes) -> bool:
        return await self._engine.transact(_append(new, entry, mac))


def _type_of(row: Row) -> TypeVersion:
    name, version, kind, schema, mode, keep, saved_by, saved_at, note = row
    read = None if schema is None else json.loads(schema)
    return TypeVersion(name, version, TypeKind(kind), read, Mode(mode), keep, saved_by, saved_at, note)


def _append(new: TypeVersion, entry: AuditEntry, mac: bytes) -> Transaction[bool]:
    schema = None if new.schema is None else strict_json.write(new.schema).decode()
    kept = (new.name, new.version, str(new.kind), schema, str(new.mode), new.keep)
    appended = yield statement(APPEND, *kept, new.saved_by, new.saved_at, new.note)
    if not appended:
        return False
    ((change_id,),) = yield statement(LOG, new.name, new.version, new.saved_by, new.saved_at, new.note)
    yield Statement(AUDIT, (*audit_values(entry, mac=mac), change_id))
    return True
