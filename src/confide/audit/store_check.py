"""Compare the store with the audit log: altered rows, versions without an entry, and removed versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import islice

from confide.database.database import HostEngine
from confide.database.engine import Engine
from confide.database.foreign_objects import find_foreign_objects
from confide.database.signed_rows import RowSigner
from confide.database.signing import find_altered_rows

BATCH_SIZE = 2_000
# A verification lists this many findings of each kind.
MAX_FINDINGS = 100
LAST_OF_BATCH = "/* verify.batch */ SELECT max(id) FROM (SELECT id FROM {table} WHERE id > $1 ORDER BY id LIMIT $2) b"
# Destroying a tenant deletes its configs with one entry for all.
UNRECORDED = """/* verify.unrecorded */
    SELECT c.tenant, c.integration_type, c.version FROM changes c
    WHERE c.id > $1 AND c.id <= $2 AND c.tenant IS NOT NULL AND c.version IS NOT NULL
      AND NOT EXISTS (
          SELECT 1 FROM audit a WHERE a.tenant = c.tenant AND a.integration_type = c.integration_type
              AND a.version = c.version AND a.change_id = c.id
      )
      AND NOT (c.kind = 'retired' AND EXISTS (
          SELECT 1 FROM audit a WHERE a.tenant = c.tenant AND a.integration_type = '*' AND a.version IS NULL
              AND a.action = 'destroy tenant'
      ))
    ORDER BY c.id
"""
# The newest version of a config is never removed, not even a tombstone.
REMOVED = """/* verify.removed */
    SELECT a.tenant, a.integration_type, a.version FROM audit a
    WHERE a.id > $1 AND a.id <= $2 AND a.tenant IS NOT NULL AND a.version IS NOT NULL AND a.change_id IS NOT NULL
      AND NOT EXISTS (
          SELECT 1 FROM changes c WHERE c.tenant = a.tenant AND c.integration_type = a.integration_type
              AND c.version >= a.version
      )
    ORDER BY a.id
"""


class StoreCheck:
    """Finds what someone changed in the store without Confide, in steps that do not block other callers for long."""

    def __init__(self, engine: HostEngine, rows: RowSigner) -> None:
        self._engine = engine
        self._rows = rows

    async def find(self) -> list[str]:
        """List the findings as sentences, at most 100 of each kind."""
        findings = (await find_foreign_objects(self._engine))[:MAX_FINDINGS]
        if self._rows.is_enforced:
            altered = [row async for row in find_altered_rows(self._engine, self._rows)]
            findings += [f"row {row} was changed without Confide" for row in altered[:MAX_FINDINGS]]
        findings += [
            f"version {version} of {tenant} : {type_} has no audit entry"
            for tenant, type_, version in await _find(self._engine, UNRECORDED, "changes")
        ]
        findings += [
            f"version {version} of {tenant} : {type_} has an audit entry and was removed"
            for tenant, type_, version in await _find(self._engine, REMOVED, "audit")
        ]
        return findings


async def _find(engine: Engine, sql: str, table: str) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    async for first, last in _iterate_batches(engine, table):
        rows = await engine.search(sql, first, last)
        found += [(str(tenant), str(type_), int(version)) for tenant, type_, version in islice(rows, MAX_FINDINGS)]
        if len(found) >= MAX_FINDINGS:
            break
    return found[:MAX_FINDINGS]


async def _iterate_batches(engine: Engine, table: str) -> AsyncIterator[tuple[int, int]]:
    """Yield the ID before each batch of rows and the last ID in it."""
    first = 0
    while True:
        ((last,),) = await engine.query(LAST_OF_BATCH.format(table=table), first, BATCH_SIZE)
        if last is None:
            return
        yield first, last
        first = last
