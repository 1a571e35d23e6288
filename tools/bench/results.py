"""Results of a run: rows, ratios, and whether each figure reached its goal."""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from load import Figures


@dataclass(frozen=True)
class Row:
    """One line of the table: the medians of the rounds of one load."""

    group: str
    name: str
    cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True)
class Figure:
    """A measured figure and its goal."""

    name: str
    value: float
    unit: str
    max_value: float | None = None
    min_value: float | None = None
    spread: tuple[float, float] | None = None  # the lowest and highest of several rounds

    @property
    def is_reached(self) -> bool:
        is_low_enough = self.max_value is None or self.value <= self.max_value
        return is_low_enough and (self.min_value is None or self.value >= self.min_value)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "most": self.max_value,
            "least": self.min_value,
            "spread": self.spread,
            "holds": self.is_reached,
        }


@dataclass
class Results:
    """All results of one run."""

    rows: list[Row] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    # The server of the benchmarks that use PostgreSQL.
    postgresql: str = ""

    def add_row(self, group: str, name: str, rounds: Sequence[Figures]) -> Row:
        def median(values: list[float]) -> float:
            return statistics.median(values)

        row = Row(
            group,
            name,
            median([one.cpu_us for one in rounds]),
            median([one.rate for one in rounds]),
            median([one.p50_ms for one in rounds]),
            median([one.p99_ms for one in rounds]),
            sum(one.errors for one in rounds),
        )
        self.rows.append(row)
        return row

    def add_figure(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        max_value: float | None = None,
        min_value: float | None = None,
        spread: tuple[float, float] | None = None,
    ) -> None:
        self.figures.append(Figure(name, value, unit, max_value, min_value, spread))

    def write(self, path: Path) -> None:
        document: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "postgresql": self.postgresql,
            "rows": [asdict(row) for row in self.rows],
            "figures": [figure.as_json() for figure in self.figures],
            "skipped": self.skipped,
        }
        path.write_text(json.dumps(document, indent=1, default=str) + "\n")


def describe_machine() -> dict[str, str]:
    """Describe the machine of the run."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "processors": f"{len(models)} x {models[0] if models else platform.machine()}",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def compute_ratio(ours: Sequence[Figures], theirs: Sequence[Figures]) -> float:
    """Return the median of the CPU-time ratios by round, because noise affects both loads of a round."""
    return statistics.median(a.cpu_us / b.cpu_us for a, b in zip(ours, theirs, strict=True))


def compute_spread(ours: Sequence[Figures], theirs: Sequence[Figures]) -> tuple[float, float]:
    """Return the lowest and the highest ratio of `compute_ratio`."""
    pairs = [a.cpu_us / b.cpu_us for a, b in zip(ours, theirs, strict=True)]
    return min(pairs), max(pairs)


def compute_percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]
