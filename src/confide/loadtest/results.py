"""Result of a run: merged over its workers, stored as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confide.loadtest.plan import Plan
from confide.loadtest.recorder import PERCENTILES, merge_histograms

FORMAT = 1
# Beyond these limits the load generator itself distorts the measurements.
MAX_CPU_SHARE = 0.85
MAX_START_LAG_US = 5_000


class InvalidResult(ValueError):
    """A file is not a result of the load generator."""


class Result:
    """Measurements of one run without its warm-up."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.plan: dict[str, Any] = document["plan"]
        self.seconds: list[dict[str, Any]] = document["seconds"]

    def to_json(self) -> str:
        return json.dumps(self.document) + "\n"

    @property
    def measured_seconds(self) -> float:
        return float(sum(stage["seconds"] for stage in self.plan["stages"]))

    @property
    def intended(self) -> int:
        """Number of scheduled requests."""
        return sum(second["intended"] for second in self.seconds)

    @property
    def answered(self) -> int:
        return sum(sum(second["answered"].values()) for second in self.seconds)

    @property
    def errors(self) -> Counter[str]:
        """Number of errors by kind."""
        total: Counter[str] = Counter()
        for second in self.seconds:
            total.update(second["errors"])
        return total

    @property
    def error_share(self) -> float:
        return sum(self.errors.values()) / max(self.intended, 1)

    def merge_seconds(self, operation: str | None = None, *, seconds: Sequence[dict[str, Any]] | None = None) -> Any:
        """Merge the histograms of one operation or all, in some seconds or all."""
        return merge_histograms(
            encoded
            for second in (self.seconds if seconds is None else seconds)
            for name, encoded in second["histograms"].items()
            if operation in (None, name)
        )

    def summarize(self, operation: str | None = None) -> dict[str, Any]:
        """Return count, rate and latencies of one operation or all. Without a response, latencies are None."""
        histogram = self.merge_seconds(operation)
        count = histogram.get_total_count()
        summary: dict[str, Any] = {
            "operation": operation or "all",
            "answered": count,
            "rate": count / self.measured_seconds,
        }
        for percent in PERCENTILES:
            summary[f"p{percent:g}_ms"] = histogram.get_value_at_percentile(percent) / 1e3 if count else None
        summary["max_ms"] = histogram.get_max_value() / 1e3 if count else None
        return summary

    def summarize_all(self) -> list[dict[str, Any]]:
        """Return the summary of the run, then of each operation."""
        return [self.summarize(), *(self.summarize(name) for name, _ in self.plan["mix"])]

    def compute_percentile_ms(self, percent: float, *, seconds: Sequence[dict[str, Any]] | None = None) -> float | None:
        """Compute a latency percentile over all operations. Return None without a response."""
        histogram = self.merge_seconds(seconds=seconds)
        return histogram.get_value_at_percentile(percent) / 1e3 if histogram.get_total_count() else None

    def find_generator_limits(self) -> list[str]:
        """Return signs that the load generator, not the service, limited the run."""
        limits = []
        generator = self.document["generator"]
        max_cpu_share = max(generator["cpu_shares"], default=0.0)
        if max_cpu_share > MAX_CPU_SHARE:
            limits.append(f"a worker used {max_cpu_share:.0%} of a core: use more --processes or a lower rate")
        start_lag_us = merge_histograms([generator["lag"]]).get_value_at_percentile(99)
        if start_lag_us > MAX_START_LAG_US:
            limits.append(
                f"1 % of the requests started more than {start_lag_us / 1e3:.1f} ms late: the machine is busy"
            )
        if generator["shortages"]:
            queued = f"{generator['shortages']:,} requests found no free connection"
            limits.append(f"{queued}: use more --connections if the service is fast")
        return limits

    def split_seconds(self, max_parts: int) -> list[list[dict[str, Any]]]:
        """Split the seconds into parts of equal length."""
        count = min(max_parts, len(self.seconds))
        return [
            self.seconds[n * len(self.seconds) // count : (n + 1) * len(self.seconds) // count] for n in range(count)
        ]


def build_result(
    plan: Plan, measurements: Sequence[dict[str, Any]], *, began_at: float, is_stopped: bool = False
) -> Result:
    """Merge the measurements of all workers. Omit the warm-up and seconds after the plan's end."""
    seconds: dict[int, dict[str, Any]] = {
        number: {"second": number, "intended": 0, "answered": {}, "histograms": {}, "errors": {}}
        for number in range(plan.find_second(plan.total_seconds - 1e-9) + 1)
    }
    for measurement in measurements:
        for number, second in measurement["seconds"].items():
            if number in seconds:
                _add_second(seconds[number], second)
    document = {
        "format": FORMAT,
        "began_at": began_at,
        "is_stopped": is_stopped,
        "plan": json.loads(json.dumps(plan.to_document())),
        "generator": {
            "cpu_shares": [measurement["cpu_share"] for measurement in measurements],
            "lag": merge_histograms(measurement["lag"] for measurement in measurements).encode().decode(),
            "shortages": sum(measurement["shortages"] for measurement in measurements),
        },
        "seconds": list(seconds.values()),
    }
    document["plan"]["stages"] = [{"seconds": stage.seconds, "rate": stage.rate} for stage in plan.stages]
    return Result(document)


def read_result(path: Path) -> Result:
    """Read the result of an earlier run. Raises `InvalidResult`."""
    try:
        document = json.loads(path.read_text())
        is_supported = document["format"] == FORMAT
        result = Result(document)
        if is_supported:
            result.summarize_all()
    except Exception as error:  # the histogram library raises many kinds of errors
        raise InvalidResult(f"{path} is not a result that `confide load --json` wrote.") from error
    if not is_supported:
        raise InvalidResult(f"{path} was written by another version of `confide load`. Run the test again.")
    return result


def _add_second(total: dict[str, Any], second: dict[str, Any]) -> None:
    total["intended"] += second["intended"]
    for kind in ("answered", "errors"):
        for name, count in second[kind].items():
            total[kind][name] = total[kind].get(name, 0) + count
    for name, encoded in second["histograms"].items():
        merged = total["histograms"].get(name)
        total["histograms"][name] = encoded if merged is None else merge_histograms([merged, encoded]).encode().decode()
