"""Stored data keys, each wrapped by a master key."""

from __future__ import annotations

from typing import NamedTuple

from confide.audit.model import SignedEntry
from confide.caching.stamps import EVERYTHING, SlotChange
from confide.configs.model import DestroyedTenant
from confide.crypto.model import WrappedKey
from confide.database.engine import AppendChange, Engine, TableLock, Transaction, statement
from confide.database.log import insert_audit
from confide.database.model import Row
from confide.database.rows import insert_into, list_columns


class KeyRow(NamedTuple):
    """The columns of a stored key."""

    id: bytes
    purpose: str
    tenant: str
    master_key_id: bytes
    wrapped: bytes | None


class NewKeyRow(NamedTuple):
    """The columns of a key to insert."""

    id: bytes
    purpose: str
    tenant: str
    master_key_id: bytes
    wrapped: bytes | None
    made_at: int


class TenantChangeRow(NamedTuple):
    """A row of the table `changes` about a whole tenant."""

    kind: str
    tenant: str
    saved_by: int | None
    saved_at: int


_KEY = list_columns(KeyRow)
INSERT_KEY = f"/* keys.add */ {insert_into('keys', NewKeyRow)} ON CONFLICT DO NOTHING"
APPEND_CHANGE = f"/* keys.log_destroyed */ {insert_into('changes', TenantChangeRow)} RETURNING id"
DELETE_ALL = """/* keys.retire_all */
    INSERT INTO changes (kind, tenant, integration_type, version, saved_by, saved_at)
    SELECT 'retired', c.tenant, c.integration_type, c.version + 1, $2, $3
    FROM changes c
    WHERE c.tenant = $1 AND c.kind = 'saved'
      AND c.version = (SELECT max(n.version) FROM changes n
                       WHERE n.tenant = c.tenant AND n.integration_type = c.integration_type)
    RETURNING id
"""


class DataKeyStore:
    """The table `keys`: data keys of tenants and of the service."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add_if_none(self, new: WrappedKey, *, made_at: int) -> WrappedKey:
        """Insert the key unless its purpose and tenant have an active one. Returns the active one."""
        await self._engine.execute(
            INSERT_KEY, *NewKeyRow(new.id, new.purpose, new.tenant, new.master_key_id, new.wrapped, made_at)
        )
        # If the key was destroyed in between, returning it is correct: a save with it fails.
        return await self.find_active(new.purpose, new.tenant) or new

    async def find_active(self, purpose: str, tenant: str) -> WrappedKey | None:
        rows = await self._engine.query(
            f"/* keys.active */ SELECT {_KEY} FROM keys WHERE purpose = $1 AND tenant = $2 AND wrapped IS NOT NULL",
            purpose,
            tenant,
        )
        return _read_key(rows[0]) if rows else None

    async def read(self, data_key_id: bytes) -> WrappedKey | None:
        rows = await self._engine.query(f"/* keys.read */ SELECT {_KEY} FROM keys WHERE id = $1", data_key_id)
        return _read_key(rows[0]) if rows else None

    async def list_all(self) -> list[WrappedKey]:
        return [
            _read_key(row) for row in await self._engine.query(f"/* keys.all */ SELECT {_KEY} FROM keys ORDER BY id")
        ]

    async def rewrap(self, key: WrappedKey, *, instead_of: bytes) -> None:
        """Replace the wrapping, unless another process already has."""
        await self._engine.execute(
            "/* keys.rewrap */ UPDATE keys SET master_key_id = $2, wrapped = $3"
            " WHERE id = $1 AND master_key_id = $4 AND wrapped IS NOT NULL",
            key.id,
            key.master_key_id,
            key.wrapped,
            instead_of,
        )

    async def destroy_tenant(
        self, tenant: str, *, user_id: int | None, at: int, audit: SignedEntry
    ) -> DestroyedTenant | None:
        """Delete all configs of a tenant and erase its keys, in one transaction. None if it had neither."""
        return await self._engine.transact(_destroy(tenant, user_id, at, audit))


def _read_key(row: Row) -> WrappedKey:
    key = KeyRow(*row)
    wrapped = None if key.wrapped is None else bytes(key.wrapped)
    return WrappedKey(bytes(key.id), key.purpose, key.tenant, bytes(key.master_key_id), wrapped)


def _destroy(tenant: str, user_id: int | None, at: int, audit: SignedEntry) -> Transaction[DestroyedTenant | None]:
    # Wait for running saves: they would commit versions encrypted with the erased key.
    yield TableLock("changes")
    erased = yield statement(
        "/* keys.destroy */ "
        "UPDATE keys SET wrapped = NULL WHERE purpose = 'config' AND tenant = $1 AND wrapped IS NOT NULL RETURNING id",
        tenant,
    )
    deleted = yield statement(DELETE_ALL, tenant, user_id, at)
    if not erased and not deleted:
        return None
    yield SlotChange(EVERYTHING)
    change = TenantChangeRow("tenant-destroyed", tenant, user_id, at)
    ((change_id,),) = yield AppendChange(APPEND_CHANGE, change, audit.mac)
    yield insert_audit(audit, change_id=change_id)
    return DestroyedTenant(len(deleted), [bytes(row[0]) for row in erased])
