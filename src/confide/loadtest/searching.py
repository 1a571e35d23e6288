"""Finding the highest rate that a service bears."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from confide.loadtest.results import Result

# The rate is known to within this part of itself.
CLOSE_ENOUGH = 0.05
MAX_TRIALS = 24
MAX_ERROR_SHARE = 0.001
LEAST_ANSWERED = 0.98


class Bound(NamedTuple):
    """What a service must keep to."""

    percent: float
    milliseconds: float


class Trial(NamedTuple):
    """One rate that was tried."""

    rate: float
    result: Result
    is_borne: bool
    why: str


def verdict(rate: float, result: Result, bound: Bound) -> Trial:
    """Whether a run kept to the bound: latency, hardly an error, and nearly everything answered."""
    latency = result.percentile(bound.percent)
    errors = sum(result.errors.values())
    if latency is None:
        return Trial(rate, result, is_borne=False, why="nothing was answered")
    said = f"p{bound.percent:g} {latency:.2f} ms"
    kinds = ", ".join(f"{count:,} x {kind}" for kind, count in result.errors.most_common())
    if errors > MAX_ERROR_SHARE * result.intended:
        return Trial(rate, result, is_borne=False, why=f"{errors:,} errors ({kinds}), {said}")
    if result.answered < LEAST_ANSWERED * result.intended:
        return Trial(rate, result, is_borne=False, why=f"{result.answered:,} of {result.intended:,} answered, {said}")
    return Trial(rate, result, is_borne=latency <= bound.milliseconds, why=said)


def find_max(begin: float, try_rate: Callable[[float], Trial | None]) -> tuple[Trial | None, list[Trial]]:
    """Double the rate until it is not borne, or halve it until it is; then halve the gap. Returns best and all.

    It ends early where a rate is not tried to the end: None.
    """
    trials: list[Trial] = []
    low: Trial | None = None
    high: Trial | None = None
    rate = begin
    while len(trials) < MAX_TRIALS:
        trial = try_rate(rate)
        if trial is None:
            break
        trials.append(trial)
        if trial.is_borne:
            low = trial
        else:
            high = trial
        if low is not None and high is not None and high.rate - low.rate <= CLOSE_ENOUGH * high.rate:
            break
        if high is None:
            rate = trial.rate * 2
        elif low is None:
            rate = trial.rate / 2
            if rate < 1:
                break
        else:
            rate = (low.rate + high.rate) / 2
    return low, trials
