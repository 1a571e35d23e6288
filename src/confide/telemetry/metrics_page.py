"""The metrics page: the sum of the counters of all workers, with I/O durations as Prometheus histograms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from confide.telemetry.histograms import BUCKET_BOUNDS_SECONDS

# Workers keep each bucket in a counter of its own, because a counter can add several observations at once.
BUCKET_COUNTER = "confide_io_steps"
DURATION_COUNTER = "confide_io_took"
HISTOGRAM = "confide_io_seconds"

# A value by the short name of its metric and the values of its labels.
Values = dict[tuple[str, ...], float]


class MetricValues(NamedTuple):
    """The values of a worker or, merged, of a service."""

    counters: Values
    gauges: Values


class MetricDefinition(NamedTuple):
    """The name of a metric on the page, its description and the names of its labels."""

    name: str
    description: str
    labels: tuple[str, ...]


def merge_values(workers: Iterable[MetricValues], *, highest: frozenset[str] = frozenset()) -> MetricValues:
    """Sum the values of workers. For the gauges in `highest`, take the highest value."""
    merged = MetricValues({}, {})
    for worker in workers:
        for key, value in worker.counters.items():
            merged.counters[key] = merged.counters.get(key, 0) + value
        for key, value in worker.gauges.items():
            known = merged.gauges.get(key, 0)
            merged.gauges[key] = max(known, value) if key[0] in highest else known + value
    return merged


def render_metrics(
    values: MetricValues, *, counters: Mapping[str, MetricDefinition], gauges: Mapping[str, MetricDefinition]
) -> bytes:
    """Render the values in the Prometheus text format. The definitions have the short names of the values."""
    # Imported on first use: the import takes a tenth of the start time.
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    families = _build_families(CounterMetricFamily, counters, values.counters)
    families += _build_families(GaugeMetricFamily, gauges, values.gauges)
    registry = CollectorRegistry()
    registry.register(_Collector(families))
    return generate_latest(registry)


class _Collector:
    """Collects prepared families, with their bucket counters merged into a histogram."""

    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        counts: dict[str, dict[float, float]] = {}
        seconds: dict[str, float] = {}
        for family in self._families:
            if family.name == BUCKET_COUNTER:
                for sample in family.samples:
                    buckets = counts.setdefault(sample.labels["operation"], {})
                    buckets[float(sample.labels["le"])] = sample.value
            elif family.name == DURATION_COUNTER:
                seconds.update({sample.labels["operation"]: sample.value for sample in family.samples})
            else:
                yield family
        yield _build_histogram(counts, seconds)


def _build_families(kind: Any, definitions: Mapping[str, MetricDefinition], values: Values) -> list[Any]:
    families = {name: kind(*definition[:2], labels=definition.labels) for name, definition in definitions.items()}
    for (name, *labels), value in values.items():
        families[name].add_metric(labels, value)
    return list(families.values())


def _build_histogram(counts: dict[str, dict[float, float]], seconds: dict[str, float]) -> Any:
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415 - the import slows the start
    from prometheus_client.utils import floatToGoString  # noqa: PLC0415 - the import slows the start

    family = HistogramMetricFamily(HISTOGRAM, "Duration of operations", labels=["operation"])
    for operation, counts_by_bound in sorted(counts.items()):
        cumulative, buckets = 0.0, []
        for bound in (*BUCKET_BOUNDS_SECONDS, float("inf")):
            cumulative += counts_by_bound.get(bound, 0.0)
            buckets.append((floatToGoString(bound), cumulative))  # type: ignore[no-untyped-call]
        family.add_metric([operation], buckets, seconds.get(operation, 0.0))
    return family
