"""Check that a PostgreSQL server still has the commits that this process has seen. Otherwise begin a new epoch.

After an asynchronous failover the new primary can lack commits that the old one acknowledged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import compress

from confide.caching.stamps import Stamps
from confide.clock import Clock
from confide.database.errors import UnsignedStore
from confide.database.identity import EntrySigner, Loss, begin_epoch_after_loss
from confide.database.postgresql.transaction import Connection, run_transaction
from confide.database.seen_commits import SeenCommits
from confide.database.signed_rows import RowSigner
from confide.epoch import UNKNOWN_EPOCH, CurrentEpoch, Epoch
from confide.errors import DatabaseUnavailable, describe_error
from confide.telemetry.io_log import IoLog

# A promotion begins another timeline. A standby has no current position in the write-ahead log.
TIMELINE = "CASE WHEN pg_is_in_recovery() THEN '00000000' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END"
# Whether each seen change has its audit entry, which has the same transaction ID and stays while the change is one of
# the latest, and whether the audit hash chain has the seen checkpoint or a removal of it. A subquery for each change
# uses the index, however large the table is.
CHECK = f"""/* store.continuity */
    SELECT epoch, epoch_number, {TIMELINE},
           ARRAY(
               SELECT seen.mac IS DISTINCT FROM (
                   SELECT a.mac FROM audit a WHERE a.xid = seen.xid::xid8 AND a.change_id = seen.id LIMIT 1
               )
               FROM unnest($1::text[], $2::bigint[], $3::bytea[]) WITH ORDINALITY AS seen (xid, id, mac, number)
               ORDER BY seen.number
           ),
           $4::bigint IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM audit_links WHERE number = $4::bigint AND link = $5::bytea)
               AND NOT EXISTS (
                   SELECT 1 FROM audit_removals WHERE first_number <= $4::bigint AND last_number >= $4::bigint
               )
    FROM store
"""

_log = logging.getLogger("confide")


class Continuity:
    """Checks each new connection before a call uses it, so that no call uses a server that lost commits unnoticed."""

    def __init__(
        self,
        epoch: CurrentEpoch,
        seen: SeenCommits,
        rows: RowSigner,
        *,
        stamps: Stamps,
        io: IoLog,
        clock: Clock,
        on_failover: Callable[[], None],
    ) -> None:
        self._epoch = epoch
        self._seen = seen
        self._rows = rows
        self._stamps = stamps
        self._io = io
        self._clock = clock
        # Called when a server of a later timeline is found. Other connections may lead to an old primary.
        self._on_failover = on_failover
        self._timeline = 0
        # Signs the audit entry of a new epoch. Nothing was seen before it is set.
        self.sign: EntrySigner | None = None

    def require_successor(self, timeline: str, epoch: Epoch) -> None:
        """Raise `DatabaseUnavailable` if the server is an old primary with an earlier timeline or epoch."""
        number = int(timeline, 16)
        if number < self._timeline:
            raise DatabaseUnavailable(
                f"The server is on timeline {number}, but this process has used timeline {self._timeline}: it is an old"
                " primary. If you restored it on purpose, restart the service."
            )
        if self._epoch.value.number > epoch.number:
            raise DatabaseUnavailable("The server is in an earlier epoch. The next connection checks it again.")
        if number > self._timeline:
            is_failover, self._timeline = self._timeline > 0, number
            if is_failover:
                self._on_failover()

    async def check(self, connection: Connection) -> None:
        """Check a new connection, and begin or adopt a new epoch if the server lost commits.

        Raises `DatabaseUnavailable` for an old primary. A check that fails says nothing about the commits.
        """
        while True:
            known, seen, checkpoint = self._epoch.value, self._seen.list_changes(), self._seen.checkpoint
            row = await connection.fetchrow(
                CHECK,
                [str(change.position.xid) for change in seen],
                [change.position.id for change in seen],
                [change.mac for change in seen],
                *(checkpoint or (None, None)),
            )
            if row is None:
                raise DatabaseUnavailable("The database has no epoch. Restart the service.")
            found_id, found_number, timeline, are_missing, is_checkpoint_missing = row
            if self._epoch.value == known:
                break
            # Another connection ended the epoch meanwhile, so what was compared is no longer expected.
        found = Epoch(found_id, found_number)
        missing = tuple(change.position for change in compress(seen, are_missing))
        is_begin_lost = found.number < known.number
        self.require_successor(timeline, max(found, known, key=lambda epoch: epoch.number))
        if known is UNKNOWN_EPOCH or self.sign is None:
            return
        if is_begin_lost or (found == known and (missing or is_checkpoint_missing)):
            lost_checkpoint = checkpoint.number if checkpoint is not None and is_checkpoint_missing else None
            loss = Loss(missing, lost_checkpoint, min_number=known.number + 1)
            await self._begin_epoch(connection, loss, found, self.sign)
        else:
            self._epoch.adopt(found)

    async def _begin_epoch(self, connection: Connection, loss: Loss, found: Epoch, sign: EntrySigner) -> None:
        work = begin_epoch_after_loss(loss, found, self._rows, now=self._clock(), has_xid=True, sign=sign)
        try:
            epoch = await run_transaction(self._io, connection, work, stamps=self._stamps)
        except UnsignedStore as error:
            raise DatabaseUnavailable(describe_error(error)) from error
        _log.error(
            "commits_lost missing_changes=%d missing_checkpoint=%s ended_epoch=%s epoch=%s",
            len(loss.positions),
            loss.checkpoint,
            found.id,
            epoch.id,
        )
        self._epoch.adopt(epoch)
