"""Collect the metrics of a worker once a second, and share them with the other workers of the service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from confide.caching.lease import Lease
from confide.caching.lru_cache import LruCache
from confide.changes.subscriber import ChangeSubscriber
from confide.errors import describe_error
from confide.names import ConfigKey
from confide.reads.reader import ConfigReader
from confide.reads.statistics import AccessStatistics
from confide.telemetry.dispatcher import Dispatcher
from confide.telemetry.histograms import BUCKET_BOUNDS_SECONDS
from confide.telemetry.metrics_files import WorkerMetricsFiles
from confide.telemetry.metrics_page import MetricDefinition, MetricValues, merge_values, render_metrics
from confide.web.connections import Connections
from confide.web.request_span import RequestCounter

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
    # None under a server that does not count connections.
    connections: Connections | None
    memories: Mapping[str, LruCache[Any]]
    # Functions that return current values, by the name of their gauge.
    gauges: Mapping[str, Callable[[], float]]


class WorkerMetrics:
    """Collects the metrics of this worker."""

    def __init__(self, sources: MetricSources, files: WorkerMetricsFiles | None = None) -> None:
        """`files` are those of all workers of the service; None if this is the only one."""
        self._sources = sources
        self._files = files
        self._has_failed_file = False
        # Metrics without labels are on the page from the start.
        self._values = MetricValues({(name,): 0 for name, metric in COUNTERS.items() if not metric.labels}, {})
        # The totals of the sources at the last update, by metric and labels.
        self._totals: dict[Any, float] = {}
        # Pairs of token and key that were read in the last second.
        self._pairs: set[tuple[int, ConfigKey]] = set()
        self._set("pairs", 0)

    async def run(self) -> None:
        """Collect the metrics once a second until cancelled. Errors are logged."""
        while True:
            await asyncio.sleep(UPDATE_SECONDS)
            try:
                self.update()
                self._set("pairs", len(self._pairs))
            except Exception:  # noqa: BLE001 - metrics must continue after an error
                _log.exception("metrics_update_failed")
            self._pairs.clear()

    def update(self) -> None:
        """Collect the metrics now."""
        self._update_reads()
        self._update_io()
        subscriber = self._sources.subscriber
        self._set_total("changes", subscriber.applied)
        self._set_total("cache_clears", subscriber.resets)
        for part, memory in self._sources.memories.items():
            self._set_total("evicted", memory.evicted, part)
            self._set("bytes", memory.bytes, part)
            self._set("entries", len(memory), part)
        self._set_total("lost", self._sources.statistics.lost)
        for name, measure in self._sources.gauges.items():
            self._set(name, measure())
        if (connections := self._sources.connections) is not None:
            self._set("connections", len(connections))
            self._set_total("refused", connections.refused)
        self._set("age", self._sources.lease.compute_age_seconds())
        self._set("workers", 1)
        self._write_file()

    def render(self) -> bytes:
        """Return the metrics of all workers in the Prometheus text format."""
        self.update()
        others = () if self._files is None else self._files.read_others()
        values = merge_values([self._values, *others], highest=HIGHEST)
        return render_metrics(values, counters=COUNTERS, gauges=GAUGES)

    def _write_file(self) -> None:
        """Share the values with the other workers."""
        if self._files is None:
            return
        try:
            self._files.write(self._values)
            self._has_failed_file = False
        except OSError as error:
            if not self._has_failed_file:
                _log.warning("metrics_file_unwritable path=%s reason=%s", error.filename, describe_error(error))
            self._has_failed_file = True

    def _update_reads(self) -> None:
        reader = self._sources.reader
        counts = reader.take_counts()
        full = counts.hits - counts.not_modified
        self._increase("reads", full, "memory")
        self._increase("reads", counts.not_modified, "not-modified")
        self._increase("requests", full, "GET /config", "200")
        self._increase("requests", counts.not_modified, "GET /config", "304")
        self._increase("sent", counts.sent_bytes)
        self._set_total("reads", reader.cache_reads, "memory")
        self._set_total("reads", reader.database_reads, "store")
        self._set_total("reads", reader.stale_reads, "stale")
        self._set_total("queries", reader.database_queries)
        self._pairs.update(counts.reads)
        self._sources.statistics.add_reads(counts.reads)
        for (route, status), count in self._sources.traffic.requests.items():
            self._set_total("requests", count, route, status)

    def _update_io(self) -> None:
        dispatcher = self._sources.dispatcher
        if dispatcher is None:
            return
        for operation, histogram in dispatcher.histograms.take().items():
            for bound, count in zip((*BUCKET_BOUNDS_SECONDS, float("inf")), histogram.counts, strict=True):
                if count:
                    self._increase("io_steps", count, operation, repr(bound))
            self._increase("io_seconds", histogram.total_seconds, operation)
            self._increase("io_errors", histogram.errors, operation)
            if operation == CONNECTION_WAIT:
                self._increase("pool_waits", sum(histogram.counts))
        self._set("io_waiting", dispatcher.recorder.waiting, "events")
        self._set_total("io_dropped", dispatcher.recorder.dropped, "events")
        for worker in dispatcher.sink_workers:
            self._set("io_waiting", worker.waiting, worker.name)
            self._set_total("io_dropped", worker.dropped, worker.name)
            self._set_total("io_written", worker.written, worker.name)
            self._set_total("io_rejected", worker.rejected, worker.name)
            self._set_total("io_failures", worker.failures, worker.name)

    def _set(self, name: str, value: float, *labels: str) -> None:
        self._values.gauges[name, *labels] = value

    def _increase(self, name: str, by: float, *labels: str) -> None:
        key = (name, *labels)
        self._values.counters[key] = self._values.counters.get(key, 0) + by

    def _set_total(self, name: str, total: float, *labels: str) -> None:
        key = (name, *labels)
        self._increase(name, total - self._totals.get(key, 0), *labels)
        self._totals[key] = total


COUNTERS: dict[str, MetricDefinition] = {
    "requests": MetricDefinition("confide_requests", "Requests by route and status", ("route", "status")),
    "reads": MetricDefinition("confide_reads", "Reads by the source of the response", ("answer",)),
    "queries": MetricDefinition("confide_fills", "Configs read from the database", ()),
    "sent": MetricDefinition("confide_read_bytes", "Bytes of responses from memory", ()),
    "changes": MetricDefinition("confide_news_changes", "Changes received from the change feed", ()),
    "cache_clears": MetricDefinition("confide_news_forgotten", "Times the whole cache was cleared", ()),
    "lost": MetricDefinition("confide_usage_lost", "Reads that access statistics lost", ()),
    "evicted": MetricDefinition("confide_memory_evicted", "Entries evicted from memory", ("part",)),
    "refused": MetricDefinition("confide_connections_refused", "Connections above a limit", ()),
    "io_steps": MetricDefinition("confide_io_steps", "Operations by duration", ("operation", "le")),
    "io_seconds": MetricDefinition("confide_io_took", "Seconds that operations took", ("operation",)),
    "io_errors": MetricDefinition("confide_io_errors", "Operations that failed", ("operation",)),
    "pool_waits": MetricDefinition("confide_pool_waits", "Times a connection was not free at once", ()),
    "io_dropped": MetricDefinition("confide_io_dropped_events", "I/O events dropped from full queues", ("queue",)),
    "io_written": MetricDefinition("confide_io_written_events", "I/O events that a sink accepted", ("sink",)),
    "io_rejected": MetricDefinition("confide_io_rejected_events", "I/O events that a sink rejected", ("sink",)),
    "io_failures": MetricDefinition("confide_io_sink_failures", "Failed writes of a sink", ("sink",)),
}
GAUGES: dict[str, MetricDefinition] = {
    "bytes": MetricDefinition("confide_memory_bytes", "Bytes in memory", ("part",)),
    "entries": MetricDefinition("confide_memory_entries", "Entries in memory", ("part",)),
    "pairs": MetricDefinition("confide_read_pairs", "Pairs of token and key read in the last second", ()),
    "workers": MetricDefinition("confide_workers", "Running workers", ()),
    "io_waiting": MetricDefinition("confide_io_waiting_events", "I/O events that wait to be written", ("queue",)),
    "hashes": MetricDefinition("confide_hash_queue", "Passwords being hashed or waiting to be hashed", ()),
    "connections": MetricDefinition("confide_open_connections", "Open connections", ()),
    "streams": MetricDefinition("confide_open_streams", "Open watch streams", ()),
    "age": MetricDefinition(
        "confide_news_age_seconds", "Seconds since the cache was last proven fresh, of the stalest worker", ()
    ),
    "watermark": MetricDefinition(
        "confide_horizon_age_seconds",
        "Seconds for which a change has waited for an older PostgreSQL transaction",
        (),
    ),
    "altered": MetricDefinition("confide_altered_rows", "Rows whose signature was invalid when last read", ()),
    "stamps": MetricDefinition("confide_stamps_unavailable", "Workers that cannot share stamps", ()),
}
# Gauges whose value for the service is the highest of its workers. The others are summed.
HIGHEST = frozenset({"age", "watermark", "altered"})
