"""A result as one page for a browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from confide.loadtest.recording import PERCENTILES
from confide.loadtest.results import Difference, Result
from confide.reports.pages import BarChart, Charts, LineChart, Part, Table, Text, render_page

COLUMNS = ("call", "answered", "a second", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms")
# Percentiles of the last chart: the nines, where stalls show.
SHOWN = (50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100)


def result_page(result: Result, *, compared: Sequence[Difference] = ()) -> str:
    """Write the result as a page that stands alone."""
    when = datetime.fromtimestamp(result.document["began_at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    return render_page(f"confide load, {when} UTC", _parts(result, compared))


def table_rows(result: Result) -> list[list[Any]]:
    """The lines of a result as rows under `COLUMNS`."""
    names = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")
    return [
        [line["call"], line["answered"], round(line["rate"], 1), *(_rounded(line[name]) for name in names)]
        for line in result.lines()
    ]


def summary(result: Result) -> str:
    """What was asked and what came of it, in a sentence or two."""
    errors = sum(result.errors.values())
    said = f"{result.intended:,} requests were due in {result.length:g} s, {result.answered:,} were answered"
    if not errors:
        return said + "; no errors."
    kinds = ", ".join(f"{count:,} x {kind}" for kind, count in result.errors.most_common())
    return f"{said}; {errors:,} errors ({errors / max(result.intended, 1):.2%}): {kinds}."


def _parts(result: Result, compared: Sequence[Difference]) -> Iterator[Part]:
    plan = result.plan
    mix = ", ".join(f"{name} {weight:g}" for name, weight in plan["mix"])
    stages = ", ".join(f"{stage['rate']:g}/s for {stage['seconds']:g} s" for stage in plan["stages"])
    yield Text(
        "What was asked", f"{stages}; {mix}; {plan['tenants']} tenants x {plan['types']} types, skew {plan['skew']:g}."
    )
    yield Text("What came of it", summary(result) + " Latency counts from when a request was due.")
    yield Table(COLUMNS, table_rows(result))
    for limit in result.limits():
        yield Text("The generator was a limit", limit)
    if compared:
        yield Text("Compared with the earlier run")
        yield Table(("", "before ms", "after ms", "difference %", "noise %", ""), [_row(one) for one in compared])
    yield Text("Over time", "Drag over a part of a chart to look closer, click twice to look at all of it again.")
    yield Charts(
        {call: _charts(result, None if call == "all" else call) for call in ("all", *(n for n, _ in plan["mix"]))}
    )


def _row(one: Difference) -> list[Any]:
    verdict = "exceeds the noise" if one.exceeds_noise else "within the noise"
    return [
        one.name,
        round(one.before, 3),
        round(one.after, 3),
        round(one.percent, 1),
        round(one.noise_percent, 1),
        verdict,
    ]


def _charts(result: Result, call: str | None) -> list[LineChart | BarChart]:
    seconds = result.seconds
    began_at, warm_up = result.document["began_at"], result.plan["warm_up_seconds"]
    when = [began_at + warm_up + second["second"] for second in seconds]
    latencies: dict[str, list[float | None]] = {f"p{percent:g}": [] for percent in PERCENTILES}
    for second in seconds:
        histogram = result.histogram(call, seconds=[second])
        for percent in PERCENTILES:
            value = histogram.get_value_at_percentile(percent) / 1e3 if histogram.get_total_count() else None
            latencies[f"p{percent:g}"].append(value)
    answered = [float(sum(n for name, n in second["answered"].items() if call in (None, name))) for second in seconds]
    charts: list[LineChart | BarChart] = [LineChart("Latency by when it was due", when, latencies, "ms")]
    if call is None:
        rates = {"due": [float(second["intended"]) for second in seconds], "answered": answered}
        charts.append(LineChart("Requests a second", when, rates, "1/s"))
        charts.append(
            LineChart("Errors a second", when, {"errors": [float(sum(s["errors"].values())) for s in seconds]}, "1/s")
        )
    whole = result.histogram(call)
    if whole.get_total_count():
        values = [whole.get_value_at_percentile(percent) / 1e3 for percent in SHOWN]
        charts.append(BarChart("Latency at each percentile", [f"p{percent:g}" for percent in SHOWN], values, "ms"))
    return charts


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
