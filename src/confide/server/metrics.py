"""Copy the counters of a worker to the metrics library once a second."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from confide.caching.lease import Lease
from confide.caching.lru_cache import LruCache
from confide.changes.subscriber import ChangeSubscriber
from confide.names import ConfigKey
from confide.reads.reader import ConfigReader
from confide.reads.statistics import AccessStatistics
from confide.telemetry.dispatcher import Dispatcher
from confide.telemetry.histograms import BUCKET_BOUNDS_SECONDS
from confide.telemetry.metrics_page import render_metrics
from confide.web.request_span import RequestCounter

# A variable of prometheus_client: the folder where the workers of one service share their metrics.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
UPDATE_SECONDS = 1.0
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
CONNECTION_WAIT = "wait connection"

_log = logging.getLogger("confide")


class MetricSources(NamedTuple):
    """The parts of a worker that count. They use plain integers, which are faster than the metrics library."""

    reader: ConfigReader
    subscriber: ChangeSubscriber
    lease: Lease
    statistics: AccessStatistics
    traffic: RequestCounter
    # None if I/O events are off.
    dispatcher: Dispatcher | None
    memories: Mapping[str, LruCache[Any]]
    # Functions that return current values, by the name of their gauge.
    gauges: Mapping[str, Callable[[], float]]


class WorkerMetrics:
    """Copies the counters of this worker to the metrics library."""

    def __init__(self, sources: MetricSources) -> None:
        self._sources = sources
        self._metrics: dict[str, Any] = {}
        # The totals of the sources at the last update, by metric and labels.
        self._totals: dict[Any, float] = {}
        # Pairs of token and key that were read in the last second.
        self._pairs: set[tuple[int, ConfigKey]] = set()

    async def run(self) -> None:
        """Copy the counters once a second until cancelled. Errors are logged."""
        while True:
            await asyncio.sleep(UPDATE_SECONDS)
            try:
                self.update()
                self._metrics["pairs"].set(len(self._pairs))
            except Exception:  # noqa: BLE001 - metrics must continue after an error
                _log.exception("metrics_update_failed")
            self._pairs.clear()

    def update(self) -> None:
        """Copy the counters now."""
        self._create_metrics()
        self._update_reads()
        self._update_io()
        subscriber = self._sources.subscriber
        self._set_total("changes", subscriber.applied)
        self._set_total("cache_clears", subscriber.resets)
        for part, memory in self._sources.memories.items():
            self._set_total("evicted", memory.evicted, part=part)
            self._metrics["bytes"].labels(part=part).set(memory.bytes)
            self._metrics["entries"].labels(part=part).set(len(memory))
        self._set_total("lost", self._sources.statistics.lost)
        for name, measure in self._sources.gauges.items():
            self._metrics[name].set(measure())
        self._metrics["age"].set(self._sources.lease.compute_age_seconds())
        self._metrics["workers"].set(1)

    def render(self) -> bytes:
        """Return the metrics of all workers in the Prometheus text format."""
        self.update()
        folder = os.environ.get(FOLDER_VARIABLE)
        return render_metrics(self._registry, folder=None if folder is None else Path(folder))

    def _update_reads(self) -> None:
        reader = self._sources.reader
        counts = reader.take_counts()
        full = counts.hits - counts.not_modified
        self._increase("reads", full, answer="memory")
        self._increase("reads", counts.not_modified, answer="not-modified")
        self._increase("requests", full, route="GET /config", status="200")
        self._increase("requests", counts.not_modified, route="GET /config", status="304")
        self._increase("sent", counts.sent_bytes)
        self._set_total("reads", reader.cache_reads, answer="memory")
        self._set_total("reads", reader.database_reads, answer="store")
        self._set_total("reads", reader.stale_reads, answer="stale")
        self._set_total("queries", reader.database_queries)
        self._pairs.update(counts.reads)
        self._sources.statistics.add_reads(counts.reads)
        for (route, status), count in self._sources.traffic.requests.items():
            self._set_total("requests", count, route=route, status=status)

    def _update_io(self) -> None:
        dispatcher = self._sources.dispatcher
        if dispatcher is None:
            return
        for operation, histogram in dispatcher.histograms.take().items():
            for bound, count in zip((*BUCKET_BOUNDS_SECONDS, float("inf")), histogram.counts, strict=True):
                if count:
                    self._increase("io_steps", count, operation=operation, le=repr(bound))
            self._increase("io_seconds", histogram.total_seconds, operation=operation)
            self._increase("io_errors", histogram.errors, operation=operation)
            if operation == CONNECTION_WAIT:
                self._increase("pool_waits", sum(histogram.counts))
        self._metrics["io_waiting"].labels(queue="events").set(dispatcher.recorder.waiting)
        self._set_total("io_dropped", dispatcher.recorder.dropped, queue="events")
        for worker in dispatcher.sink_workers:
            self._metrics["io_waiting"].labels(queue=worker.name).set(worker.waiting)
            self._set_total("io_dropped", worker.dropped, queue=worker.name)
            self._set_total("io_written", worker.written, sink=worker.name)
            self._set_total("io_rejected", worker.rejected, sink=worker.name)
            self._set_total("io_failures", worker.failures, sink=worker.name)

    def _create_metrics(self) -> None:
        if self._metrics:
            return
        # Imported on first use: the import takes a tenth of the start time.
        from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics  # noqa: PLC0415

        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        metrics: dict[str, Any] = {}
        for name, (full, description, labels) in COUNTERS.items():
            metrics[name] = Counter(full, description, labels, registry=self._registry)
        for name, (full, description, labels) in GAUGES.items():
            mode: Any = "livemax" if name in HIGHEST else "livesum"
            metrics[name] = Gauge(full, description, labels, registry=self._registry, multiprocess_mode=mode)
        self._metrics = metrics

    def _increase(self, name: str, by: float, **labels: str) -> None:
        counter = self._metrics[name]
        (counter.labels(**labels) if labels else counter).inc(by)

    def _set_total(self, name: str, total: float, **labels: str) -> None:
        labeled = (name, *labels.values())
        self._increase(name, total - self._totals.get(labeled, 0), **labels)
        self._totals[labeled] = total


COUNTERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "requests": ("confide_requests", "Requests by route and status", ("route", "status")),
    "reads": ("confide_reads", "Reads by the source of the response", ("answer",)),
    "queries": ("confide_fills", "Configs read from the database", ()),
    "sent": ("confide_read_bytes", "Bytes of responses from memory", ()),
    "changes": ("confide_news_changes", "Changes received from the change feed", ()),
    "cache_clears": ("confide_news_forgotten", "Times the whole cache was cleared", ()),
    "lost": ("confide_usage_lost", "Reads that access statistics lost", ()),
    "evicted": ("confide_memory_evicted", "Entries evicted from memory", ("part",)),
    "io_steps": ("confide_io_steps", "Operations by duration", ("operation", "le")),
    "io_seconds": ("confide_io_took", "Seconds that operations took", ("operation",)),
    "io_errors": ("confide_io_errors", "Operations that failed", ("operation",)),
    "pool_waits": ("confide_pool_waits", "Times a connection was not free at once", ()),
    "io_dropped": ("confide_io_dropped_events", "I/O events dropped from full queues", ("queue",)),
    "io_written": ("confide_io_written_events", "I/O events that a sink accepted", ("sink",)),
    "io_rejected": ("confide_io_rejected_events", "I/O events that a sink rejected", ("sink",)),
    "io_failures": ("confide_io_sink_failures", "Failed writes of a sink", ("sink",)),
}
GAUGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "bytes": ("confide_memory_bytes", "Bytes in memory", ("part",)),
    "entries": ("confide_memory_entries", "Entries in memory", ("part",)),
    "pairs": ("confide_read_pairs", "Pairs of token and key read in the last second", ()),
    "workers": ("confide_workers", "Running workers", ()),
    "io_waiting": ("confide_io_waiting_events", "I/O events that wait to be written", ("queue",)),
    "hashes": ("confide_hash_queue", "Passwords being hashed or waiting to be hashed", ()),
    "streams": ("confide_open_streams", "Open watch streams", ()),
    "age": ("confide_news_age_seconds", "Seconds since the cache was last proven fresh, of the stalest worker", ()),
    "watermark": (
        "confide_horizon_age_seconds",
        "Seconds for which a change has waited for an older PostgreSQL transaction",
        (),
    ),
}
# Gauges whose value for the service is the highest of its workers. The others are summed.
HIGHEST = frozenset({"age", "watermark"})
