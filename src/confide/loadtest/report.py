"""Report of a result: a sentence, a table and an HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from confide.loadtest.comparison import Difference
from confide.loadtest.recorder import PERCENTILES
from confide.loadtest.results import Result
from confide.reports.pages import BarChart, Charts, LineChart, Part, Table, Text, render_page

COLUMNS = ("operation", "answered", "per second", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms")
# Many high percentiles, because stalls appear there.
CHART_PERCENTILES = (50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100)


def render_report(result: Result, *, differences: Sequence[Difference] = ()) -> str:
    """Render a result as one self-contained HTML page."""
    began_at = datetime.fromtimestamp(result.document["began_at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    return render_page(f"confide load, {began_at} UTC", _build_parts(result, differences))


def build_table_rows(result: Result) -> list[list[Any]]:
    """Return the rows of the run and of each operation, under `COLUMNS`."""
    latencies = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")
    return [
        [
            summary["operation"],
            summary["answered"],
            round(summary["rate"], 1),
            *(_round(summary[name]) for name in latencies),
        ]
        for summary in result.summarize_all()
    ]


def format_summary(result: Result) -> str:
    """Format the number of requests, responses and errors as a sentence."""
    errors = sum(result.errors.values())
    scheduled = f"{result.intended:,} requests were scheduled in {result.measured_seconds:g} s"
    counts = f"{scheduled}, {result.answered:,} were answered"
    if not errors:
        return f"{counts}; no errors."
    kinds = ", ".join(f"{count:,} x {kind}" for kind, count in result.errors.most_common())
    return f"{counts}; {errors:,} errors ({errors / max(result.intended, 1):.2%}): {kinds}."


def _build_parts(result: Result, differences: Sequence[Difference]) -> Iterator[Part]:
    plan = result.plan
    mix = ", ".join(f"{name} {weight:g}" for name, weight in plan["mix"])
    stages = ", ".join(f"{stage['rate']:g}/s for {stage['seconds']:g} s" for stage in plan["stages"])
    yield Text("Plan", f"{stages}; {mix}; {plan['tenants']} tenants x {plan['types']} types, skew {plan['skew']:g}.")
    yield Text("Result", f"{format_summary(result)} Latency is measured from each request's scheduled start.")
    yield Table(COLUMNS, build_table_rows(result))
    for limit in result.find_generator_limits():
        yield Text("The load generator limited the run", limit)
    if differences:
        yield Text("Compared with the earlier run")
        rows = [_build_difference_row(difference) for difference in differences]
        yield Table(("", "before ms", "after ms", "difference %", "noise %", ""), rows)
    yield Text("Over time", "Drag over a part of a chart to zoom in. Double-click to zoom out.")
    operations = [name for name, _ in plan["mix"]]
    charts = {name: _build_charts(result, name) for name in operations}
    yield Charts({"all": _build_charts(result, None), **charts})


def _build_difference_row(difference: Difference) -> list[Any]:
    return [
        difference.name,
        round(difference.before, 3),
        round(difference.after, 3),
        round(difference.percent, 1),
        round(difference.noise_percent, 1),
        difference.verdict,
    ]


def _build_charts(result: Result, operation: str | None) -> list[LineChart | BarChart]:
    seconds = result.seconds
    began_at, warm_up_seconds = result.document["began_at"], result.plan["warm_up_seconds"]
    times = [began_at + warm_up_seconds + second["second"] for second in seconds]
    latencies: dict[str, list[float | None]] = {f"p{percent:g}": [] for percent in PERCENTILES}
    for second in seconds:
        histogram = result.merge_seconds(operation, seconds=[second])
        for percent in PERCENTILES:
            value = histogram.get_value_at_percentile(percent) / 1e3 if histogram.get_total_count() else None
            latencies[f"p{percent:g}"].append(value)
    charts: list[LineChart | BarChart] = [LineChart("Latency by scheduled start", times, latencies, "ms")]
    if operation is None:
        rates = {
            "scheduled": [float(second["intended"]) for second in seconds],
            "answered": [float(sum(second["answered"].values())) for second in seconds],
        }
        errors = {"errors": [float(sum(second["errors"].values())) for second in seconds]}
        charts.append(LineChart("Requests per second", times, rates, "1/s"))
        charts.append(LineChart("Errors per second", times, errors, "1/s"))
    total = result.merge_seconds(operation)
    if total.get_total_count():
        names = [f"p{percent:g}" for percent in CHART_PERCENTILES]
        values = [total.get_value_at_percentile(percent) / 1e3 for percent in CHART_PERCENTILES]
        charts.append(BarChart("Latency at each percentile", names, values, "ms"))
    return charts


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
