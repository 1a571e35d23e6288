"""Compare the store with the audit log: altered rows, versions without an entry, and removed versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import islice

from confide.audit.model import SESSIONS
from confide.audit.origin_check import OriginCheck
from confide.database.database import HostEngine
from confide.database.engine import Engine
from confide.database.foreign_objects import find_foreign_objects
from confide.database.signed_rows import RowName, RowSigner
from confide.database.signing import scan_rows

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

    async def find(self, origins: OriginCheck, *, now: int) -> list[str]:
        """List the findings as sentences, at most 100 of each kind. `origins` are those of the verified entries."""
        findings = (await find_foreign_objects(self._engine))[:MAX_FINDINGS]
        if self._rows.is_enforced:
            findings += (await self._find_rows(origins, now))[:MAX_FINDINGS]
        findings += [*origins.findings, *origins.list_missing()][:MAX_FINDINGS]
        findings += [
            f"version {version} of {tenant} : {type_} has no audit entry"
            for tenant, type_, version in await _find(self._engine, UNRECORDED, "changes")
        ]
        findings += [
            f"version {version} of {tenant} : {type_} has an audit entry and was removed"
            for tenant, type_, version in await _find(self._engine, REMOVED, "audit")
        ]
        return findings

    async def _find_rows(self, origins: OriginCheck, now: int) -> list[str]:
        """Find rows that are altered, or whose counter is lower than that in the audit log, or missing."""
        found, counters = [], {}
        async for row in scan_rows(self._engine, self._rows):
            counters[row.name] = row.counter
            if not row.is_valid:
                found.append(f"row {row.name} was changed without Confide")
        for name, state in origins.rows.items():
            if state.until is not None and state.until <= now:
                continue  # the row of an expired token is removed
            # Sessions are removed when an epoch begins.
            stored = name if state.table != SESSIONS else RowName("tokens", name.key)
            counter = counters.get(stored)
            if counter is None and state.table != SESSIONS:
                found.append(f"row {stored} was removed without Confide")
            elif counter is not None and counter < state.counter:
                known = state.counter
                found.append(f"row {stored} was put back: its counter is {counter}, and the audit log has {known}")
        return found


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
