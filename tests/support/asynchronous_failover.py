"""An asynchronous failover of a real PostgreSQL: a standby that stops receiving is promoted in place of its primary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.postgres import LocalPostgresServer, find_distribution_binaries
from support.proxy import Proxy


class Failover:
    """A primary, its standby, and an address that leads to one of them."""

    def __init__(self, primary: LocalPostgresServer, standby: LocalPostgresServer, proxy: Proxy, database: str) -> None:
        self.primary = primary
        self.standby = standby
        self._proxy = proxy
        self._database = database

    @property
    def url(self) -> str:
        """Return the URL of the database as a service sees it."""
        url = self.primary.url(self._database)
        return self.primary.build_proxied_url(url, self._proxy.port)

    async def wait_for_standby(self) -> None:
        """Wait until the standby has replayed everything that the primary has committed."""
        ((position,),) = await self.primary.fetch("SELECT pg_current_wal_lsn()::text")
        while True:
            rows = await self.standby.fetch("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position)
            if rows[0][0]:
                return
            await asyncio.sleep(0.02)

    async def stop_receiving(self) -> None:
        """Let the standby receive nothing from now on: what the primary commits will be lost."""
        await self.wait_for_standby()
        self.standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.standby.execute("SELECT pg_reload_conf()")
        while await self.standby.fetch("SELECT 1 FROM pg_stat_wal_receiver"):  # noqa: ASYNC110 - over SQL
            await asyncio.sleep(0.02)

    async def fail_over(self) -> None:
        """End the primary as a crash would, promote the standby, and lead the address to it."""
        await asyncio.to_thread(self.primary.kill)
        await self.standby.fetch("SELECT pg_promote()")
        self._proxy.redirect(self.standby.port)

    def redirect(self, server: LocalPostgresServer) -> None:
        """Lead the address to another server."""
        self._proxy.redirect(server.port)

    async def fetch(self, sql: str, *args: object) -> list[tuple[object, ...]]:
        """Run a query on the database of the new primary."""
        return [tuple(row) for row in await self.standby.fetch(sql, *args, database=self._database)]


@asynccontextmanager
async def prepare_failover() -> AsyncIterator[Failover]:
    """Start a primary with an empty database, and a hot standby that streams from it."""
    options = ("max_wal_size=256MB", "wal_receiver_status_interval=1")
    primary = LocalPostgresServer(options=options, binaries=find_distribution_binaries())
    standby = proxy = None
    try:
        await asyncio.to_thread(primary.start)
        database = primary.new_database(is_shared=True).rsplit("/", 1)[1]
        standby = LocalPostgresServer(options=options, binaries=find_distribution_binaries(), primary=primary)
        await asyncio.to_thread(standby.start)
        proxy = Proxy(primary.port)
        await proxy.start()
        yield Failover(primary, standby, proxy, database)
    finally:
        if proxy is not None:
            await proxy.stop()
        for server in (standby, primary):
            if server is not None:
                await asyncio.to_thread(server.remove)
