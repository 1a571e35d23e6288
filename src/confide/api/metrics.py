"""What all workers count, on one page. The only module that knows the metrics library."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confide.domain.names import Key
from confide.service.lease import Lease
from confide.service.listening import Listener
from confide.service.memory import Memory
from confide.service.reading import Reading

# The library's own variable: the folder in which the workers of one service keep what they count.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
TAKE_OVER_SECONDS = 1.0
TEXT = b"text/plain; version=0.0.4; charset=utf-8"

_log = logging.getLogger("confide")
_LIVE_FILE = re.compile(r"gauge_live[a-z]*_(\d+)\.db")


class WorkerMetrics:
    """What this worker counts, taken over once a second from the plain integers of its parts."""

    def __init__(
        self,
        reading: Reading,
        *,
        listener: Listener,
        lease: Lease,
        memories: Mapping[str, Memory[Any]],
    ) -> None:
        self._reading = reading
        self._listener = listener
        self._lease = lease
        self._memories = memories
        self._known: dict[str, Any] = {}
        self._totals: dict[Any, int] = {}
        self._pairs: set[tuple[bytes, Key]] = set()

    async def run(self) -> None:
        """Take over once a second; whatever goes wrong, what was counted is taken over the next time."""
        while True:
            await asyncio.sleep(TAKE_OVER_SECONDS)
            try:
                self.take_over()
                self._known["pairs"].set(len(self._pairs))
            except Exception:  # noqa: BLE001 - counting must go on
                _log.exception("what was counted could not be written down")
            self._pairs.clear()

    def take_over(self) -> None:
        taken = self._reading.take()
        self._make()
        self._grow("reads", taken.hits - taken.not_modified, answer="memory")
        self._grow("reads", taken.not_modified, answer="not-modified")
        self._grow("sent", taken.sent_bytes)
        self._become("reads", self._reading.from_memory, answer="memory")
        self._become("reads", self._reading.from_store, answer="store")
        self._become("reads", self._reading.stale, answer="stale")
        self._become("fills", self._reading.fills)
        self._become("changes", self._listener.heard)
        self._become("forgotten", self._listener.forgotten)
        for part, memory in self._memories.items():
            self._become("evicted", memory.evicted, part=part)
            self._known["bytes"].labels(part=part).set(memory.bytes)
            self._known["entries"].labels(part=part).set(len(memory))
        self._pairs.update(taken.reads)
        self._known["age"].set(self._lease.age())
        self._known["workers"].set(1)

    def page(self) -> bytes:
        """Everything that all workers have counted, in the text form of Prometheus."""
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess  # noqa: PLC0415 - as below

        self.take_over()
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is None:
            return generate_latest(self._registry)
        _forget_the_dead(Path(folder))
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _make(self) -> None:
        if self._known:
            return
        # Imported when first needed: it would make the start slower by a tenth.
        from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics  # noqa: PLC0415

        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        of_all: Any = {"registry": registry, "multiprocess_mode": "livesum"}
        self._known = {
            "reads": Counter("confide_reads", "Reads by what answered them", ["answer"], registry=registry),
            "fills": Counter("confide_fills", "Times the store was asked for a config", registry=registry),
            "sent": Counter("confide_read_bytes", "Bytes answered from memory", registry=registry),
            "changes": Counter("confide_news_changes", "Changes heard from the log", registry=registry),
            "forgotten": Counter("confide_news_forgotten", "Times everything was forgotten", registry=registry),
            "evicted": Counter("confide_memory_evicted", "What had to make room", ["part"], registry=registry),
            "bytes": Gauge("confide_memory_bytes", "Bytes remembered", ["part"], **of_all),
            "entries": Gauge("confide_memory_entries", "Things remembered", ["part"], **of_all),
            "pairs": Gauge("confide_read_pairs", "Pairs of token and key read in the last second", **of_all),
            "workers": Gauge("confide_workers", "Workers alive", **of_all),
            "age": Gauge(
                "confide_news_age_seconds",
                "Since memory was last proven, the oldest of all workers",
                registry=registry,
                multiprocess_mode="livemax",
            ),
        }

    def _grow(self, name: str, by: int, **labels: str) -> None:
        counter = self._known[name]
        (counter.labels(**labels) if labels else counter).inc(by)

    def _become(self, name: str, total: int, **labels: str) -> None:
        known = (name, *labels.values())
        self._grow(name, total - self._totals.get(known, 0), **labels)
        self._totals[known] = total


def _forget_the_dead(folder: Path) -> None:
    """Take the gauges of workers that are gone off the page; what they counted stays."""
    from prometheus_client import multiprocess  # noqa: PLC0415 - as above

    numbers = {int(found[1]) for path in folder.iterdir() if (found := _LIVE_FILE.fullmatch(path.name))}
    for number in numbers:
        if not Path(f"/proc/{number}").exists():
            multiprocess.mark_process_dead(number, str(folder))  # type: ignore[no-untyped-call]
