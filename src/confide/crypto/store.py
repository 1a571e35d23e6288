"""Stored data keys, each wrapped by a master key."""

from __future__ import annotations

from typing import NamedTuple

from confide.audit.model import EntryDraft
from confide.caching.stamps import EVERYTHING, SlotChange
from confide.configs.model import DestroyedTenant
from confide.crypto.model import WrappedKey
from confide.database.engine import AppendChange, Engine, Lock, Many, TableLock, Transaction, statement
from confide.database.log import describe_row, insert_audit, transact_with_entry
from confide.database.model import Rows
from confide.database.rows import insert_into, list_columns
from confide.database.signed_rows import RowSigner, update_row


class KeyRow(NamedTuple):
    """A row of the table `keys`."""

    id: bytes
    purpose: str
    tenant: str
    master_key_id: bytes
    wrapped: bytes | None
    made_at: int
    counter: int | None = None
    mac: bytes | None = None


class TenantChangeRow(NamedTuple):
    """A row of the table `changes` about a whole tenant."""

    kind: str
    tenant: str
    saved_by: int | None
    saved_at: int


_KEY = list_columns(KeyRow)
INSERT_KEY = f"/* keys.add */ {insert_into('keys', KeyRow)} ON CONFLICT DO NOTHING"
UPDATE_KEY = f"/* keys.change */ UPDATE {update_row('keys', KeyRow)}"
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
    """The table `keys`: data keys of tenants and of the service.

    The wrapping of a key authenticates it. The MAC of its row authenticates that it was erased.
    """

    def __init__(self, engine: Engine, rows: RowSigner) -> None:
        self._engine = engine
        self._rows = rows

    async def add_if_none(self, new: WrappedKey, *, made_at: int) -> WrappedKey:
        """Insert the key unless its purpose and tenant have an active one. Returns the active one."""
        row = KeyRow(new.id, new.purpose, new.tenant, new.master_key_id, new.wrapped, made_at)
        await self._engine.execute(INSERT_KEY, *self._rows.sign("keys", row))
        # If the key was destroyed in between, returning it is correct: a save with it fails.
        return await self.find_active(new.purpose, new.tenant) or new

    async def find_active(self, purpose: str, tenant: str) -> WrappedKey | None:
        rows = await self._engine.query(
            f"/* keys.active */ SELECT {_KEY} FROM keys WHERE purpose = $1 AND tenant = $2 AND wrapped IS NOT NULL",
            purpose,
            tenant,
        )
        return next(iter(self._read_keys(rows)), None)

    async def read(self, data_key_id: bytes) -> WrappedKey | None:
        """Read a key. A key that was erased without Confide counts as missing."""
        rows = await self._engine.query(f"/* keys.read */ SELECT {_KEY} FROM keys WHERE id = $1", data_key_id)
        return next(iter(self._read_keys(rows)), None)

    async def list_all(self) -> list[WrappedKey]:
        """List all keys, without those that were erased without Confide."""
        return self._read_keys(await self._engine.query(f"/* keys.all */ SELECT {_KEY} FROM keys ORDER BY id"))

    async def rewrap(self, key: WrappedKey, *, instead_of: bytes) -> None:
        """Replace the wrapping, unless another process already has."""
        await self._engine.transact(_rewrap(self._rows, key, instead_of))

    def _read_keys(self, rows: Rows) -> list[WrappedKey]:
        found = [KeyRow(*row) for row in rows]
        return [_read_key(row) for row in found if row.wrapped is not None or self._rows.is_believed("keys", row)]

    async def destroy_tenant(
        self, tenant: str, *, user_id: int | None, at: int, audit: EntryDraft
    ) -> DestroyedTenant | None:
        """Delete all configs of a tenant and erase its keys, in one transaction. None if it had neither."""
        return await transact_with_entry(self._engine, audit, _destroy(self._rows, tenant, user_id, at, audit))


def _read_key(key: KeyRow) -> WrappedKey:
    wrapped = None if key.wrapped is None else bytes(key.wrapped)
    return WrappedKey(bytes(key.id), key.purpose, key.tenant, bytes(key.master_key_id), wrapped)


def _rewrap(rows: RowSigner, key: WrappedKey, instead_of: bytes) -> Transaction[None]:
    yield Lock("keys")
    found = yield statement(f"/* keys.read_to_change */ SELECT {_KEY} FROM keys WHERE id = $1", key.id)
    for row in (KeyRow(*one) for one in found):
        if row.wrapped is not None and bytes(row.master_key_id) == instead_of:
            new = rows.sign("keys", row, master_key_id=key.master_key_id, wrapped=key.wrapped)
            yield statement(UPDATE_KEY, *new)


def _destroy(
    rows: RowSigner, tenant: str, user_id: int | None, at: int, audit: EntryDraft
) -> Transaction[DestroyedTenant | None]:
    # Wait for running saves: they would commit versions encrypted with the erased key.
    yield TableLock("changes")
    yield Lock("keys")
    found = yield statement(
        f"/* keys.read_to_destroy */ SELECT {_KEY} FROM keys"
        " WHERE purpose = 'config' AND tenant = $1 AND wrapped IS NOT NULL",
        tenant,
    )
    erased = [rows.sign("keys", KeyRow(*row), wrapped=None) for row in found]
    if erased:
        yield Many(UPDATE_KEY, erased)
    deleted = yield statement(DELETE_ALL, tenant, user_id, at)
    if not erased and not deleted:
        return None
    yield SlotChange(EVERYTHING)
    change = TenantChangeRow("tenant-destroyed", tenant, user_id, at)
    signed = audit.sign([describe_row("keys", row) for row in erased])
    ((change_id,),) = yield AppendChange(APPEND_CHANGE, change, signed.mac)
    yield insert_audit(signed, change_id=change_id)
    return DestroyedTenant(len(deleted), [bytes(row.id) for row in erased])
