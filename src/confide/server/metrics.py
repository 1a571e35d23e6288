"""What a worker counts, handed once a second to the metrics library: these two rooms alone know it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from confide.caching.lease import Lease
from confide.caching.memory import BoundedMemory
from confide.changes.subscriber import ChangeSubscriber
from confide.names import Key
from confide.reads.reader import ConfigReader
from confide.reads.statistics import AccessStatistics
from confide.telemetry.histograms import STEPS
from confide.telemetry.metrics_page import page_of
from confide.telemetry.sink_workers import Dispatcher
from confide.web.request_scope import RequestCounter

# The library's own variable: the folder in which the workers of one service keep what they count.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
TAKE_OVER_SECONDS = 1.0
TEXT = b"text/plain; version=0.0.4; charset=utf-8"
CONNECTION_WAIT = "wait connection"

_log = logging.getLogger("confide")


class Counting(NamedTuple):
    """The parts of a worker that count in plain integers."""

    reading: ConfigReader
    listener: ChangeSubscriber
    lease: Lease
    usage: AccessStatistics
    traffic: RequestCounter
    # None where no I/O events are noted.
    pump: Dispatcher | None
    memories: Mapping[str, BoundedMemory[Any]]
    # What there is at this moment, by the name of its gauge.
    depths: Mapping[str, Callable[[], float]]


class WorkerMetrics:
    """What this worker counts, taken over once a second from the plain integers of its parts."""

    def __init__(self, counting: Counting) -> None:
        self._counting = counting
        self._known: dict[str, Any] = {}
        self._totals: dict[Any, float] = {}
        self._pairs: set[tuple[int, Key]] = set()

    async def run(self) -> None:
        """Take over once a second; whatever goes wrong is logged, and counting goes on."""
        while True:
            await asyncio.sleep(TAKE_OVER_SECONDS)
            try:
                self.take_over()
                self._known["pairs"].set(len(self._pairs))
            except Exception:  # noqa: BLE001 - counting must go on
                _log.exception("what was counted could not be written down")
            self._pairs.clear()

    def take_over(self) -> None:
        self._make()
        self._take_over_reads()
        self._take_over_io()
        listener, usage = self._counting.listener, self._counting.usage
        self._become("changes", listener.applied)
        self._become("forgotten", listener.resets)
        for part, memory in self._counting.memories.items():
            self._become("evicted", memory.evicted, part=part)
            self._known["bytes"].labels(part=part).set(memory.bytes)
            self._known["entries"].labels(part=part).set(len(memory))
        self._become("lost", usage.lost)
        for name, depth in self._counting.depths.items():
            self._known[name].set(depth())
        self._known["age"].set(self._counting.lease.age())
        self._known["workers"].set(1)

    def page(self) -> bytes:
        """Everything that all workers have counted, in the text form of Prometheus."""
        self.take_over()
        folder = os.environ.get(FOLDER_VARIABLE)
        return page_of(self._registry, folder=None if folder is None else Path(folder))

    def _take_over_reads(self) -> None:
        reading = self._counting.reading
        taken = reading.take()
        found = taken.hits - taken.not_modified
        self._grow("reads", found, answer="memory")
        self._grow("reads", taken.not_modified, answer="not-modified")
        self._grow("requests", found, route="GET /config", status="200")
        self._grow("requests", taken.not_modified, route="GET /config", status="304")
        self._grow("sent", taken.sent_bytes)
        self._become("reads", reading.from_memory, answer="memory")
        self._become("reads", reading.from_store, answer="store")
        self._become("reads", reading.stale, answer="stale")
        self._become("fills", reading.fills)
        self._pairs.update(taken.reads)
        self._counting.usage.take_in(taken.reads)
        for (route, status), count in self._counting.traffic.requests.items():
            self._become("requests", count, route=route, status=status)

    def _take_over_io(self) -> None:
        pump = self._counting.pump
        if pump is None:
            return
        for operation, tally in pump.tallies.take().items():
            for step, count in zip((*STEPS, float("inf")), tally.counts, strict=True):
                if count:
                    self._grow("io_steps", count, operation=operation, le=repr(step))
            self._grow("io_seconds", tally.seconds, operation=operation)
            self._grow("io_errors", tally.errors, operation=operation)
            if operation == CONNECTION_WAIT:
                self._grow("pool_waits", sum(tally.counts))
        self._known["io_waiting"].labels(queue="events").set(pump.recorder.waiting)
        self._become("io_dropped", pump.recorder.dropped, queue="events")
        for outlet in pump.outlets:
            self._known["io_waiting"].labels(queue=outlet.name).set(outlet.waiting)
            self._become("io_dropped", outlet.dropped, queue=outlet.name)
            self._become("io_written", outlet.written, sink=outlet.name)
            self._become("io_rejected", outlet.rejected, sink=outlet.name)
            self._become("io_failures", outlet.failures, sink=outlet.name)

    def _make(self) -> None:
        if self._known:
            return
        # Imported when first needed: it would make the start slower by a tenth.
        from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics  # noqa: PLC0415

        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        made: dict[str, Any] = {}
        for name, (full, said, labels) in COUNTERS.items():
            made[name] = Counter(full, said, labels, registry=self._registry)
        for name, (full, said, labels) in GAUGES.items():
            mode: Any = "livemax" if name in OLDEST else "livesum"
            made[name] = Gauge(full, said, labels, registry=self._registry, multiprocess_mode=mode)
        self._known = made

    def _grow(self, name: str, by: float, **labels: str) -> None:
        counter = self._known[name]
        (counter.labels(**labels) if labels else counter).inc(by)

    def _become(self, name: str, total: float, **labels: str) -> None:
        known = (name, *labels.values())
        self._grow(name, total - self._totals.get(known, 0), **labels)
        self._totals[known] = total


COUNTERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "requests": ("confide_requests", "Requests by route and status", ("route", "status")),
    "reads": ("confide_reads", "Reads by what answered them", ("answer",)),
    "fills": ("confide_fills", "Times the store was asked for a config", ()),
    "sent": ("confide_read_bytes", "Bytes answered from memory", ()),
    "changes": ("confide_news_changes", "Changes heard from the log", ()),
    "forgotten": ("confide_news_forgotten", "Times everything was forgotten", ()),
    "lost": ("confide_usage_lost", "Reads that the usage ledger could not keep", ()),
    "evicted": ("confide_memory_evicted", "What had to make room", ("part",)),
    "io_steps": ("confide_io_steps", "Operations by how long they took", ("operation", "le")),
    "io_seconds": ("confide_io_took", "Seconds that operations took", ("operation",)),
    "io_errors": ("confide_io_errors", "Operations that failed", ("operation",)),
    "pool_waits": ("confide_pool_waits", "Times a connection was not free at once", ()),
    "io_dropped": ("confide_io_dropped_events", "I/O events that found no room", ("queue",)),
    "io_written": ("confide_io_written_events", "I/O events that a sink took", ("sink",)),
    "io_rejected": ("confide_io_rejected_events", "I/O events that a sink will never take", ("sink",)),
    "io_failures": ("confide_io_sink_failures", "Times a sink did not take what it was given", ("sink",)),
}
GAUGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "bytes": ("confide_memory_bytes", "Bytes remembered", ("part",)),
    "entries": ("confide_memory_entries", "Things remembered", ("part",)),
    "pairs": ("confide_read_pairs", "Pairs of token and key read in the last second", ()),
    "workers": ("confide_workers", "Workers alive", ()),
    "io_waiting": ("confide_io_waiting_events", "I/O events that wait to be written", ("queue",)),
    "hashes": ("confide_hash_queue", "Passwords being hashed or waiting for it", ()),
    "streams": ("confide_open_streams", "Streams of changes that somebody watches", ()),
    "age": ("confide_news_age_seconds", "Since memory was last proven, the oldest of all workers", ()),
    "horizon": ("confide_horizon_age_seconds", "Since a change waits for an older transaction in PostgreSQL", ()),
}
OLDEST = frozenset({"age", "horizon"})
