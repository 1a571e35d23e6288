"""Stored access statistics."""

from __future__ import annotations

from collections.abc import Sequence

from confide.database.engine import Engine, Many, Transaction
from confide.names import ConfigKey
from confide.reads.model import AccessSummary, ReadCount

ADD = """/* usage.add */
    INSERT INTO usage (tenant, integration_type, token_id, user_id, label, last_read_at, reads)
    VALUES ($1, $2, $3, (SELECT user_id FROM tokens WHERE id = $3), (SELECT label FROM tokens WHERE id = $3), $4, $5)
    ON CONFLICT (tenant, integration_type, token_id) DO UPDATE SET
        reads = usage.reads + excluded.reads,
        last_read_at = CASE WHEN excluded.last_read_at > usage.last_read_at
                            THEN excluded.last_read_at ELSE usage.last_read_at END
"""
LIST = """/* usage.of */
    SELECT n.token_id, u.login, n.label, n.last_read_at, n.reads
    FROM usage n LEFT JOIN users u ON u.id = n.user_id AND u.removed_at IS NULL
    WHERE n.tenant = $1 AND n.integration_type = $2 ORDER BY n.last_read_at DESC, n.token_id LIMIT $3
"""


class AccessStatisticsStore:
    """The table `usage`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, counts: Sequence[ReadCount]) -> None:
        await self._engine.transact(_add(counts))

    async def list_readers(self, key: ConfigKey, *, limit: int) -> list[AccessSummary]:
        """List the tokens that read a config, the latest first."""
        return [AccessSummary(*row) for row in await self._engine.query(LIST, *key, limit)]


def _add(counts: Sequence[ReadCount]) -> Transaction[None]:
    # Always in the same order, so that two processes that add the same counts do not deadlock.
    yield Many(ADD, sorted((*count.key, count.token_id, count.last_read_at, count.reads) for count in counts))
