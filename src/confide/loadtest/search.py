"""Search for the highest rate that a service sustains within a latency limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from confide.loadtest.results import Result

# The search ends when the rate is known to within this share.
PRECISION = 0.05
MAX_TRIALS = 24
MAX_ERROR_SHARE = 0.001
MIN_ANSWERED_SHARE = 0.98


class LatencyLimit(NamedTuple):
    """Highest latency that a percentile may have."""

    percent: float
    milliseconds: float


class Trial(NamedTuple):
    """Run at one rate, and whether the service sustained it."""

    rate: float
    result: Result
    is_sustained: bool
    reason: str


class RateSearch(NamedTuple):
    """The trials of a search, and the sustained one with the highest rate, if any."""

    best: Trial | None
    trials: list[Trial]


def judge_trial(rate: float, result: Result, limit: LatencyLimit) -> Trial:
    """Judge whether a run kept the latency limit with hardly any error and nearly every request answered."""
    latency_ms = result.compute_percentile_ms(limit.percent)
    errors = sum(result.errors.values())
    if latency_ms is None:
        return Trial(rate, result, is_sustained=False, reason="no request was answered")
    latency = f"p{limit.percent:g} {latency_ms:.2f} ms"
    if errors > MAX_ERROR_SHARE * result.intended:
        kinds = ", ".join(f"{count:,} x {kind}" for kind, count in result.errors.most_common())
        return Trial(rate, result, is_sustained=False, reason=f"{errors:,} errors ({kinds}), {latency}")
    if result.answered < MIN_ANSWERED_SHARE * result.intended:
        reason = f"{result.answered:,} of {result.intended:,} answered, {latency}"
        return Trial(rate, result, is_sustained=False, reason=reason)
    return Trial(rate, result, is_sustained=latency_ms <= limit.milliseconds, reason=latency)


def find_max_rate(start_rate: float, try_rate: Callable[[float], Trial | None]) -> RateSearch:
    """Search the highest sustained rate.

    Doubles the rate until it is not sustained, or halves it until it is. Then bisects. A trial of None ends the
    search.
    """
    trials: list[Trial] = []
    low: Trial | None = None
    high: Trial | None = None
    rate = start_rate
    while len(trials) < MAX_TRIALS:
        trial = try_rate(rate)
        if trial is None:
            break
        trials.append(trial)
        if trial.is_sustained:
            low = trial
        else:
            high = trial
        if low is not None and high is not None and high.rate - low.rate <= PRECISION * high.rate:
            break
        if high is None:
            rate = trial.rate * 2
        elif low is None:
            rate = trial.rate / 2
            if rate < 1:
                break
        else:
            rate = (low.rate + high.rate) / 2
    return RateSearch(low, trials)
