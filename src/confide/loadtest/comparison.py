"""Comparison of two runs, with the noise within each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from confide.loadtest.results import Result

COMPARED_PERCENTILES = (50.0, 99.0)
# Noise is the variation between this many parts of a run.
MAX_PARTS = 10
# Two-sided 95 % quantiles of Student's t by degrees of freedom, from 1. The last one is close enough for more.
T_VALUES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10)
MAX_ERROR_SHARE_INCREASE = 0.001


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of one percentile between two runs, in milliseconds, with its noise."""

    name: str
    before: float
    after: float
    noise_percent: float

    @property
    def percent(self) -> float:
        return (self.after / self.before - 1) * 100

    @property
    def is_significant(self) -> bool:
        return abs(self.percent) > self.noise_percent

    @property
    def is_slower(self) -> bool:
        return self.is_significant and self.percent > 0

    @property
    def verdict(self) -> str:
        return "exceeds the noise" if self.is_significant else "within the noise"

    def describe(self) -> str:
        times = f"{self.before:.3f} → {self.after:.3f} ms"
        change = f"{self.percent:+.1f} % ± {self.noise_percent:.1f} %"
        return f"{self.name}, mean of the parts of each run, {times}: {change}, {self.verdict}"


def compare_results(before: Result, after: Result) -> list[Difference]:
    """Compare two runs by the means of their parts (Welch's t-test at 95 %).

    The noise is the variation within the runs. On a shared machine, results vary more from run to run.
    """
    differences = []
    for percent in COMPARED_PERCENTILES:
        old, new = (_compute_part_percentiles(result, percent) for result in (before, after))
        if len(old) > 1 and len(new) > 1:
            differences.append(_compare_samples(f"p{percent:g}", old, new))
    return differences


def find_plan_differences(before: Result, after: Result) -> list[str]:
    """Return the members in which two plans differ. Runs of different plans cannot be judged."""
    members = ("stages", "mix", "tenants", "types", "skew", "warm_up_seconds", "timeout_seconds", "seed")
    return [name for name in members if before.plan.get(name) != after.plan.get(name)]


def has_more_errors(before: Result, after: Result) -> bool:
    """Return whether clearly more requests failed. Failed requests are in no histogram, so a run looks faster."""
    return after.error_share > before.error_share + MAX_ERROR_SHARE_INCREASE


def _compute_part_percentiles(result: Result, percent: float) -> list[float]:
    values = (result.compute_percentile_ms(percent, seconds=part) for part in result.split_seconds(MAX_PARTS))
    return [value for value in values if value is not None]


def _compare_samples(name: str, old: Sequence[float], new: Sequence[float]) -> Difference:
    variances = [(stdev(values) ** 2 / len(values), len(values)) for values in (old, new)]
    error = math.sqrt(sum(variance for variance, _ in variances))
    degrees_of_freedom = 1.0
    if error:
        degrees_of_freedom = error**4 / sum(variance**2 / (count - 1) for variance, count in variances)
    t_value = T_VALUES[min(max(int(degrees_of_freedom), 1), len(T_VALUES)) - 1]
    return Difference(name, mean(old), mean(new), t_value * error / mean(old) * 100)
