"""The metrics page: the sum of the counters of all workers, with I/O durations as Prometheus histograms."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from confide.telemetry.histograms import BUCKET_BOUNDS_SECONDS

_LIVE_GAUGE_FILE = re.compile(r"gauge_live[a-z]*_(\d+)\.db")
# Workers keep each bucket in a counter of its own, because a counter can add several observations at once.
BUCKET_COUNTER = "confide_io_steps"
DURATION_COUNTER = "confide_io_took"
HISTOGRAM = "confide_io_seconds"


def render_metrics(registry: Any, *, folder: Path | None) -> bytes:
    """Render the metrics in the Prometheus text format.

    With `folder`, these are the metrics that all workers share there, else those of the registry of this worker.
    """
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - the import slows the start

    source = registry if folder is None else _MultiWorkerCollector(folder)
    page_registry = CollectorRegistry()
    page_registry.register(_HistogramCollector(source))
    return generate_latest(page_registry)


class _HistogramCollector:
    """The metrics of another collector, with its bucket counters merged into a histogram."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def collect(self) -> Iterable[Any]:
        counts: dict[str, dict[float, float]] = {}
        seconds: dict[str, float] = {}
        for family in self._source.collect():
            if family.name == BUCKET_COUNTER:
                for sample in family.samples:
                    buckets = counts.setdefault(sample.labels["operation"], {})
                    buckets[float(sample.labels["le"])] = sample.value
            elif family.name == DURATION_COUNTER:
                seconds.update({sample.labels["operation"]: sample.value for sample in family.samples})
            else:
                yield family
        yield _build_histogram(counts, seconds)


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


class _MultiWorkerCollector:
    """The metrics of all workers, like those of `MultiProcessCollector`, but without empty files.

    A file is empty for a moment after another worker created it, and the library fails on it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Any]:
        from prometheus_client import multiprocess  # noqa: PLC0415 - the import slows the start

        _delete_gauges_of_ended_workers(self._folder)
        files = [str(path) for path in self._folder.glob("*.db") if _has_content(path)]
        return multiprocess.MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-untyped-call, no-any-return]


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # another worker rendered the page at the same time and deleted the file
        return False


def _delete_gauges_of_ended_workers(folder: Path) -> None:
    """Delete the gauge files of workers that ended. Their counters stay."""
    for path in folder.iterdir():
        match = _LIVE_GAUGE_FILE.fullmatch(path.name)
        if match is not None and not Path(f"/proc/{match[1]}").exists():
            path.unlink(missing_ok=True)
