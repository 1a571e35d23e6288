"""The SQL of the retention of the audit log."""

from __future__ import annotations

from confide.audit.chain import Removal
from confide.audit.store import RemovalRow
from confide.database.engine import Engine, Lock, Transaction, statement
from confide.database.rows import insert_into

# Processes look for the audit entries of the latest changes that they saw, to notice lost commits: twice as many.
KEPT_CHANGES = 2_000

LAST_SIGNED = "/* upkeep.last_signed */ SELECT coalesce(max(number), 0) FROM checkpoints"
FIRST_RECENT_CHANGE = """/* upkeep.recent_change */
    SELECT id FROM audit WHERE change_id IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET $1
"""
# Entries of recent changes, and of changes that the change log still has: all current versions are among them.
NEEDED = """/* upkeep.needed_entries */
    SELECT l.number FROM audit_links l JOIN audit a ON a.id = l.audit_id
    WHERE l.number BETWEEN $1 AND $2 AND a.change_id IS NOT NULL
      AND (a.id >= $3 OR EXISTS (SELECT 1 FROM changes c WHERE c.id = a.change_id))
"""
COUNT = "/* upkeep.count_entries */ SELECT count(*) FROM audit_links WHERE number BETWEEN $1 AND $2"
REMOVE_ENTRIES = """/* upkeep.remove_entries */
    DELETE FROM audit WHERE id IN (SELECT audit_id FROM audit_links WHERE number BETWEEN $1 AND $2)
"""
REMOVE_LINKS = "/* upkeep.remove_links */ DELETE FROM audit_links WHERE number BETWEEN $1 AND $2"
REMOVE_CHECKPOINTS = "/* upkeep.remove_checkpoints */ DELETE FROM checkpoints WHERE number BETWEEN $1 AND $2"
REMOVE_REMOVALS = "/* upkeep.remove_removals */ DELETE FROM audit_removals WHERE first_number BETWEEN $1 AND $2"
INSERT_REMOVAL = f"/* upkeep.insert_removal */ {insert_into('audit_removals', RemovalRow)}"


class AuditRetentionStore:
    """Removes stretches of the audit log, each in a transaction with the removal that stands for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def read_last_signed(self) -> int:
        """Return the number of the latest checkpoint."""
        ((number,),) = await self._engine.query(LAST_SIGNED)
        return int(number)

    async def find_first_recent_change(self) -> int:
        """Return the ID of the first audit entry that belongs to one of the latest changes."""
        rows = await self._engine.search(FIRST_RECENT_CHANGE, KEPT_CHANGES - 1)
        return int(rows[0][0]) if rows else 0

    async def list_needed(self, first: int, last: int, *, first_recent_change: int) -> set[int]:
        """List the numbers of entries that the retention keeps: those of stored versions and of recent changes."""
        rows = await self._engine.search(NEEDED, first, last, first_recent_change)
        return {int(number) for (number,) in rows}

    async def remove(self, removal: Removal, *, count: int) -> bool:
        """Remove the entries of a stretch, and the removals that it includes.

        `count` is the number of entries that the stretch had when it was verified. Returns False if it differs.
        """
        return await self._engine.transact(_remove(removal, count))


def _remove(removal: Removal, count: int) -> Transaction[bool]:
    yield Lock("audit chain")
    stretch = (removal.first, removal.last)
    ((found,),) = yield statement(COUNT, *stretch)
    if found != count:
        return False
    for sql in (REMOVE_ENTRIES, REMOVE_LINKS, REMOVE_CHECKPOINTS, REMOVE_REMOVALS):
        yield statement(sql, *stretch)
    row = RemovalRow(
        removal.first,
        removal.last,
        removal.previous_link,
        removal.link,
        removal.at,
        removal.public_key,
        removal.signature,
    )
    yield statement(INSERT_REMOVAL, *row)
    return True
