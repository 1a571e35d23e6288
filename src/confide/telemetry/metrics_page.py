"""The page of metrics: what all workers have counted, added up; histograms of I/O made of their steps."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from confide.telemetry.histograms import STEPS

_LIVE_FILE = re.compile(r"gauge_live[a-z]*_(\d+)\.db")
# Counted for each step apart, because only so can several be added at once.
STEP_COUNTS = "confide_io_steps"
STEP_SECONDS = "confide_io_took"
HISTOGRAM = "confide_io_seconds"


def page_of(registry: Any, *, folder: Path | None) -> bytes:
    """Write the page, of one worker's registry or of the folder in which all workers count."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - when first needed, as all of it

    together = CollectorRegistry()
    together.register(_Together(registry if folder is None else _AllWorkers(folder)))
    return generate_latest(together)


class _Together:
    """What another collector holds, with the counts of I/O shown as the histograms that they are."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def collect(self) -> Iterable[Any]:
        steps: dict[str, dict[float, float]] = {}
        took: dict[str, float] = {}
        for family in self._source.collect():
            if family.name == STEP_COUNTS:
                for sample in family.samples:
                    of = steps.setdefault(sample.labels["operation"], {})
                    of[float(sample.labels["le"])] = sample.value
            elif family.name == STEP_SECONDS:
                took.update({sample.labels["operation"]: sample.value for sample in family.samples})
            else:
                yield family
        yield _histogram(steps, took)


def _histogram(steps: dict[str, dict[float, float]], took: dict[str, float]) -> Any:
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415 - as above
    from prometheus_client.utils import floatToGoString  # noqa: PLC0415 - as above

    family = HistogramMetricFamily(HISTOGRAM, "How long operations took", labels=["operation"])
    for operation, counts in sorted(steps.items()):
        below, buckets = 0.0, []
        for end in (*STEPS, float("inf")):
            below += counts.get(end, 0.0)
            buckets.append((floatToGoString(end), below))  # type: ignore[no-untyped-call]
        family.add_metric([operation], buckets, took.get(operation, 0.0))
    return family


class _AllWorkers:
    """The library's collector of all workers, but for the file that another worker is making at this moment.

    Between the moment that file is opened and the moment it has its size it is empty, and the library fails on it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Any]:
        from prometheus_client import multiprocess  # noqa: PLC0415 - as above

        _forget_the_dead(self._folder)
        files = [str(path) for path in self._folder.glob("*.db") if _has_begun(path)]
        return multiprocess.MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-untyped-call, no-any-return]


def _has_begun(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # its worker is gone, and another worker was asked for the page at the same time
        return False


def _forget_the_dead(folder: Path) -> None:
    """Take the gauges of workers that are gone off the page; what they counted stays."""
    for path in folder.iterdir():
        found = _LIVE_FILE.fullmatch(path.name)
        if found is not None and not Path(f"/proc/{found[1]}").exists():
            path.unlink(missing_ok=True)
