"""Wrapped keys, in the same words on both engines."""

from __future__ import annotations

from confide.audit.model import AuditEntry
from confide.configs.model import DestroyedTenant
from confide.crypto.model import WrappedKey
from confide.database.engine import Engine, Statement, TableLock, Transaction, statement
from confide.database.log import AUDIT, audit_values
from confide.database.model import Row

COLUMNS = "id, purpose, tenant, master_key_id, wrapped"
RETIRE_ALL = """/* keys.retire_all */
    INSERT INTO changes (kind, tenant, integration_type, version, saved_by, saved_at)
    SELECT 'retired', c.tenant, c.integration_type, c.version + 1, $2, $3
    FROM changes c
    WHERE c.tenant = $1 AND c.kind = 'saved'
      AND c.version = (SELECT max(n.version) FROM changes n
                       WHERE n.tenant = c.tenant AND n.integration_type = c.integration_type)
    RETURNING id
"""


class DataKeyStore:
    """Keys of tenants and of the store, each wrapped by a master key."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add_if_none(self, new: WrappedKey, *, made_at: int) -> WrappedKey:
        await self._engine.transact(_add(new, made_at))
        # Destroyed between the two: what was inserted is as good as any answer, nothing can be saved under it.
        return await self.active(new.purpose, new.tenant) or new

    async def active(self, purpose: str, tenant: str) -> WrappedKey | None:
        rows = await self._engine.rows(
            f"/* keys.active */ SELECT {COLUMNS} FROM keys WHERE purpose = $1 AND tenant = $2 AND wrapped IS NOT NULL",
            purpose,
            tenant,
        )
        return _key_of(rows[0]) if rows else None

    async def read(self, key_id: bytes) -> WrappedKey | None:
        rows = await self._engine.rows(f"/* keys.read */ SELECT {COLUMNS} FROM keys WHERE id = $1", key_id)
        return _key_of(rows[0]) if rows else None

    async def all(self) -> list[WrappedKey]:
        return [
            _key_of(row) for row in await self._engine.rows(f"/* keys.all */ SELECT {COLUMNS} FROM keys ORDER BY id")
        ]

    async def rewrap(self, key: WrappedKey, *, instead_of: bytes) -> None:
        await self._engine.transact(_rewrap(key, instead_of))

    async def destroy_tenant(
        self, tenant: str, *, user_id: int | None, at: int, entry: AuditEntry, mac: bytes
    ) -> DestroyedTenant | None:
        return await self._engine.transact(_destroy(tenant, user_id, at, entry, mac))


def _key_of(row: Row) -> WrappedKey:
    id_, purpose, tenant, master_key_id, wrapped = row
    return WrappedKey(bytes(id_), purpose, tenant, bytes(master_key_id), None if wrapped is None else bytes(wrapped))


def _add(new: WrappedKey, made_at: int) -> Transaction[None]:
    yield statement(
        "/* keys.add */ INSERT INTO keys (id, purpose, tenant, master_key_id, wrapped, made_at)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        new.id,
        new.purpose,
        new.tenant,
        new.master_key_id,
        new.wrapped,
        made_at,
    )


def _rewrap(key: WrappedKey, instead_of: bytes) -> Transaction[None]:
    yield statement(
        "/* keys.rewrap */ "
        "UPDATE keys SET master_key_id = $2, wrapped = $3 WHERE id = $1 AND master_key_id = $4 AND wrapped IS NOT NULL",
        key.id,
        key.master_key_id,
        key.wrapped,
        instead_of,
    )


def _destroy(
    tenant: str, user_id: int | None, at: int, entry: AuditEntry, mac: bytes
) -> Transaction[DestroyedTenant | None]:
    # No save may be under way: one that began before would seal under a key that is gone.
    yield TableLock("changes")
    erased = yield statement(
        "/* keys.destroy */ "
        "UPDATE keys SET wrapped = NULL WHERE purpose = 'config' AND tenant = $1 AND wrapped IS NOT NULL RETURNING id",
        tenant,
    )
    retired = yield statement(RETIRE_ALL, tenant, user_id, at)
    if not erased and not retired:
        return None
    ((change_id,),) = yield statement(
        "/* keys.log_destroyed */ "
        "INSERT INTO changes (kind, tenant, saved_by, saved_at) VALUES ($1, $2, $3, $4) RETURNING id",
        "tenant-destroyed",
        tenant,
        user_id,
        at,
    )
    yield Statement(AUDIT, (*audit_values(entry, mac=mac), change_id))
    return DestroyedTenant(len(retired), [bytes(row[0]) for row in erased])
