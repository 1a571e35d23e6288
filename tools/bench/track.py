"""The track: one run on one machine, its folder, its stores and how anybody on it is loaded."""

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
from support.postgres import LocalPostgresServer, PostgresServer


class Track:
    """Everything is started here and compared within one run."""

    def __init__(
        self,
        results: Results,
        *,
        seconds: float,
        rounds: int,
        large: int,
        before: str,
        say: Callable[[str], None],
    ) -> None:
        self.results = results
        self.seconds = seconds
        self.rounds = rounds
        self.large = large
        self.before = before
        self.say = say
        self.folder = Path(tempfile.mkdtemp(prefix="confide-bench-"))
        self._stores = 0

    def load(self, pids: list[int], port: int, requests: list[bytes], **more: Any) -> Figures:
        more = {"seconds": self.seconds, **more}
        return measure(pids, port, requests, folder=self.folder, **more)

    def in_turn(
        self,
        what: str,
        servers: Mapping[str, tuple[int, int, Seeded]],
        ask: Callable[[Seeded], list[bytes]],
        *,
        rounds: int,
        connections: int,
    ) -> dict[str, list[Figures]]:
        """Load servers (process id, port, store) in turn: the first round warms them; who goes first changes."""
        found: dict[str, list[Figures]] = {which: [] for which in servers}
        for number in range(rounds + 1):
            self.say(f"{what}, round {number} of {rounds}")
            for which in sorted(servers, reverse=bool(number % 2)):
                pid, port, seeded = servers[which]
                load = self.load([pid], port, ask(seeded), connections=connections)
                found[which].extend([load] if number else [])
        return found

    def filled(self, count: int, database: str | None = None) -> Seeded:
        """A store of its own with that many configs."""
        self._stores += 1
        self.say(f"filling a store with {count:,} configs")
        settings = Settings(
            data=self.folder / f"store-{self._stores}",
            database=database,
            unsafe_durability=True,
        )
        return asyncio.run(seed(settings, count))

    @contextmanager
    def postgres(self) -> Iterator[PostgresServer]:
        """A durable server, as it comes, but for room to keep a million configs in memory."""
        server = LocalPostgresServer(options=("shared_buffers=1GB", "max_wal_size=4GB", "max_connections=200"))
        server.start()
        try:
            yield server
        finally:
            server.remove()
