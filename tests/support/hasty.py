"""A planted fault: `confide serve` that answers a save before it is committed."""

from __future__ import annotations

import asyncio
from typing import Any

from confide.configs.store import PostgresqlConfigStore, SqliteConfigStore

LATE_SECONDS = 0.2
_running: set[asyncio.Task[Any]] = set()


def make_hasty(kind: type[Any]) -> None:
    commit = kind.append

    async def append(self: Any, new: Any, **more: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(LATE_SECONDS)
            await commit(self, new, **more)

        task = asyncio.create_task(later())
        _running.add(task)
        task.add_done_callback(_running.discard)

    kind.append = append


for engine in (SqliteConfigStore, PostgresqlConfigStore):
    make_hasty(engine)

if __name__ == "__main__":
    from confide.cli import main

    main()
