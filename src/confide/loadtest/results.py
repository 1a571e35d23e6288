"""What a run came to: added up over its processes, kept as JSON, compared with another run."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from confide.loadtest.plans import Plan
from confide.loadtest.recording import PERCENTILES, together

FORMAT = 1
# A run is cut into so many parts, each of which is measured alone: how much they differ is its noise.
PARTS = 10
# Two-sided 95 % of Student's t with so few degrees of freedom; beyond them 2 is near enough.
T_VALUES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10)
# The generator was the limit, or near it: what it measured is then its own doing as well.
BUSY_SHARE = 0.85
# So much more of all requests may fail before it counts as worse.
MAX_MORE_ERRORS = 0.001
LATE_MICROS = 5_000


class BadResult(ValueError):
    """A file that is no result of a run."""


class Result:
    """One run, without its warming up."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.plan: dict[str, Any] = document["plan"]
        self.seconds: list[dict[str, Any]] = document["seconds"]

    def text(self) -> str:
        """As it is kept in a file."""
        return json.dumps(self.document) + "\n"

    @property
    def length(self) -> float:
        return float(sum(stage["seconds"] for stage in self.plan["stages"]))

    @property
    def intended(self) -> int:
        return sum(second["intended"] for second in self.seconds)

    @property
    def answered(self) -> int:
        return sum(sum(second["answered"].values()) for second in self.seconds)

    @property
    def errors(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for second in self.seconds:
            found.update(second["errors"])
        return found

    def histogram(self, call: str | None = None, *, seconds: Sequence[dict[str, Any]] | None = None) -> Any:
        """Of one kind of call or of all, in all seconds or some."""
        return together(
            encoded
            for second in (self.seconds if seconds is None else seconds)
            for name, encoded in second["histograms"].items()
            if call in (None, name)
        )

    def line(self, call: str | None = None) -> dict[str, Any]:
        """Count and latency of one kind of call or of all, in milliseconds."""
        histogram = self.histogram(call)
        count = histogram.get_total_count()
        line: dict[str, Any] = {"call": call or "all", "answered": count, "rate": count / self.length}
        for percent in PERCENTILES:
            line[f"p{percent:g}_ms"] = histogram.get_value_at_percentile(percent) / 1e3 if count else None
        line["max_ms"] = histogram.get_max_value() / 1e3 if count else None
        return line

    def lines(self) -> list[dict[str, Any]]:
        return [self.line(), *(self.line(name) for name, _ in self.plan["mix"])]

    def percentile(self, percent: float, *, seconds: Sequence[dict[str, Any]] | None = None) -> float | None:
        """In milliseconds; None where nothing was answered."""
        histogram = self.histogram(seconds=seconds)
        return histogram.get_value_at_percentile(percent) / 1e3 if histogram.get_total_count() else None

    @property
    def error_share(self) -> float:
        return sum(self.errors.values()) / max(self.intended, 1)

    def limits(self) -> list[str]:
        """What speaks for the generator having been the limit, in sentences."""
        found = []
        generator = self.document["generator"]
        busiest = max(generator["cpu_shares"], default=0.0)
        if busiest > BUSY_SHARE:
            found.append(f"a process of the generator used {busiest:.0%} of a core: more --processes, or a lower rate")
        lag = together([generator["lag"]])
        late = lag.get_value_at_percentile(99)
        if late > LATE_MICROS:
            found.append(f"1 % of all requests began more than {late / 1e3:.1f} ms late: the machine is too busy")
        if generator["shortages"]:
            waited = f"{generator['shortages']:,} requests found no free connection"
            found.append(f"{waited}: more --connections, if the service is quick")
        return found

    def parts(self) -> list[list[dict[str, Any]]]:
        """The run in parts of equal length."""
        count = min(PARTS, len(self.seconds))
        return [
            self.seconds[n * len(self.seconds) // count : (n + 1) * len(self.seconds) // count] for n in range(count)
        ]


def result_of(plan: Plan, done: Sequence[dict[str, Any]], *, began_at: float, is_stopped: bool = False) -> Result:
    """Add up what the processes of a run say; what was warming up is left out, and what is after the plan's end."""
    seconds: dict[int, dict[str, Any]] = {
        number: {"second": number, "intended": 0, "answered": {}, "histograms": {}, "errors": {}}
        for number in range(plan.second_of(plan.seconds - 1e-9) + 1)
    }
    for share in done:
        for number, told in share["seconds"].items():
            if number in seconds:
                _add(seconds[number], told)
    document = {
        "format": FORMAT,
        "began_at": began_at,
        "is_stopped": is_stopped,
        "plan": json.loads(json.dumps(plan.document())),
        "generator": {
            "cpu_shares": [share["cpu_share"] for share in done],
            "lag": together(share["lag"] for share in done).encode().decode(),
            "shortages": sum(share["shortages"] for share in done),
        },
        "seconds": list(seconds.values()),
    }
    document["plan"]["stages"] = [{"seconds": stage.seconds, "rate": stage.rate} for stage in plan.stages]
    return Result(document)


def _add(to: dict[str, Any], told: dict[str, Any]) -> None:
    to["intended"] += told["intended"]
    for kind in ("answered", "errors"):
        for name, count in told[kind].items():
            to[kind][name] = to[kind].get(name, 0) + count
    for call, encoded in told["histograms"].items():
        known = to["histograms"].get(call)
        to["histograms"][call] = encoded if known is None else together([known, encoded]).encode().decode()


def read_result(path: Path) -> Result:
    """Read what an earlier run wrote; raises `BadResult`."""
    try:
        document = json.loads(path.read_text())
        is_another = document["format"] != FORMAT
        result = Result(document)
        if not is_another:
            result.lines()
    except Exception as error:  # whatever a damaged file makes of its histograms
        raise BadResult(f"{path} is no result that confide load wrote.") from error
    if is_another:
        raise BadResult(f"{path} was written by another version of confide load.")
    return result


@dataclass(frozen=True, slots=True)
class Difference:
    """How one number of two runs differs, in percent of the earlier one, and how much of that may be noise."""

    name: str
    before: float
    after: float
    noise_percent: float

    @property
    def percent(self) -> float:
        return (self.after / self.before - 1) * 100

    @property
    def exceeds_noise(self) -> bool:
        return abs(self.percent) > self.noise_percent

    @property
    def is_slower(self) -> bool:
        return self.exceeds_noise and self.percent > 0

    def sentence(self) -> str:
        verdict = "exceeds the noise" if self.exceeds_noise else "within the noise"
        times = f"{self.before:.3f} → {self.after:.3f} ms"
        differs = f"{self.percent:+.1f} % ± {self.noise_percent:.1f} %"
        return f"{self.name}, mean of the parts of each run, {times}: {differs}, {verdict}"


def differences(before: Result, after: Result) -> list[Difference]:
    """Compare two runs by the means of their parts (Welch's t-test at 95 %).

    That is the noise within the runs; what differs from run to run on a shared machine comes on top.
    """
    found = []
    for percent in (50.0, 99.0):
        old, new = (list(_of_parts(result, percent)) for result in (before, after))
        if len(old) > 1 and len(new) > 1:
            found.append(_difference(f"p{percent:g}", old, new))
    return found


def unlike(before: Result, after: Result) -> list[str]:
    """The parts of the two plans that differ, by which alone the runs may differ."""
    compared = ("stages", "mix", "tenants", "types", "skew", "warm_up_seconds", "timeout_seconds", "seed")
    return [name for name in compared if before.plan.get(name) != after.plan.get(name)]


def has_more_errors(before: Result, after: Result) -> bool:
    """Whether clearly more requests failed: those are in no histogram, and would make a service look quicker."""
    return after.error_share > before.error_share + MAX_MORE_ERRORS


def _of_parts(result: Result, percent: float) -> Iterable[float]:
    for part in result.parts():
        value = result.percentile(percent, seconds=part)
        if value is not None:
            yield value


def _difference(name: str, old: list[float], new: list[float]) -> Difference:
    by_run = [(stdev(values) ** 2 / len(values), len(values)) for values in (old, new)]
    error = math.sqrt(sum(variance for variance, _ in by_run))
    freedom = 1.0
    if error:
        freedom = error**4 / sum(variance**2 / (count - 1) for variance, count in by_run)
    t_value = T_VALUES[min(max(int(freedom), 1), len(T_VALUES)) - 1]
    return Difference(name, mean(old), mean(new), t_value * error / mean(old) * 100)
