"""The environment of a run on one machine: its folder, its databases, and the load for every server."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from load import Figures, measure
from results import Results
from seeds import Seeded, seed

from confide.server.settings import Settings
from support.distribution import DistributionServer
from support.postgres import LocalPostgresServer, OwnPostgresServer, PostgresServer


class BenchmarkEnvironment:
    """The folder, the databases and the options that all benchmarks share."""

    def __init__(
        self,
        results: Results,
        *,
        seconds: float,
        rounds: int,
        large: int,
        before: str,
        uses_distribution: bool,
        report_step: Callable[[str], None],
    ) -> None:
        self.results = results
        self.seconds = seconds
        self.rounds = rounds
        self.large = large
        self.before = before
        self.uses_distribution = uses_distribution
        self.report_step = report_step
        self.folder = Path(tempfile.mkdtemp(prefix="confide-bench-"))
        self._stores = 0

    def load(self, pids: list[int], port: int, requests: list[bytes], **more: Any) -> Figures:
        more = {"seconds": self.seconds, **more}
        return measure(pids, port, requests, folder=self.folder, **more)

    def load_in_turn(
        self,
        label: str,
        servers: Mapping[str, tuple[int, int, Seeded]],
        build_requests: Callable[[Seeded], list[bytes]],
        *,
        rounds: int,
        connections: int,
    ) -> dict[str, list[Figures]]:
        """Load servers (process ID, port, database) in turn. The first round only warms them; the order alternates."""
        found: dict[str, list[Figures]] = {name: [] for name in servers}
        for number in range(rounds + 1):
            self.report_step(f"{label}, round {number} of {rounds}")
            for name in sorted(servers, reverse=bool(number % 2)):
                pid, port, seeded = servers[name]
                load = self.load([pid], port, build_requests(seeded), connections=connections)
                found[name].extend([load] if number else [])
        return found

    def fill_store(self, count: int, database: str | None = None) -> Seeded:
        """Create a database with that many configs."""
        self._stores += 1
        self.report_step(f"filling a database with {count:,} configs")
        settings = Settings(
            data=self.folder / f"store-{self._stores}",
            database=database,
            unsafe_durability=True,
        )
        return asyncio.run(seed(settings, count))

    @contextmanager
    def run_postgres(self) -> Iterator[PostgresServer]:
        """Start the server of the distribution, or one with enough memory for a million configs. Both are durable."""
        server: OwnPostgresServer
        if self.uses_distribution:
            server = DistributionServer()
        else:
            server = LocalPostgresServer(options=("shared_buffers=1GB", "max_wal_size=4GB", "max_connections=200"))
        try:
            server.start()
            yield server
        finally:
            server.remove()
