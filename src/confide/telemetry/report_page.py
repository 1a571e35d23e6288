"""The I/O report as an HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from confide.reports.pages import Bar, BarChart, Charts, LineChart, Part, Table, Text, Waterfall, render_page
from confide.telemetry.histograms import is_error
from confide.telemetry.report import BAR_BOUNDS_MS, OperationTimes, Report, SlowRequest

MAX_CHARTS = 30
COLUMNS = ("operation", "count", "errors", "p50 ms", "p90 ms", "p99 ms", "max ms", "total ms", "share %")


def render_report(report: Report, *, source: str) -> str:
    """Render the report as a self-contained page. `source` names the data folder in the title."""
    return render_page(f"Confide: I/O of {source}", _build_parts(report))


def _build_parts(report: Report) -> Iterator[Part]:
    yield Text("Requests", "Duration of each request, from its head until its response is handed to the connection.")
    yield Table(COLUMNS, build_table_rows(report, has_requests=True))
    yield Text("Operations", "Waits outside the process. The share is of the total time of all operations.")
    yield Table(COLUMNS, build_table_rows(report, has_requests=False))
    yield Text("Over time", "Drag across a chart to zoom in. Double-click to reset.")
    yield Charts({operation: _build_charts(report, report.times[operation]) for operation in _choose_charted(report)})
    yield Text("Slowest requests", "Each request with its operations.")
    for slow in report.slowest:
        yield _build_waterfall(slow)


def build_table_rows(report: Report, *, has_requests: bool) -> list[list[object]]:
    """Build the rows of a table with `COLUMNS`."""
    return [
        [
            line["operation"],
            line["count"],
            line["errors"],
            *(round(line[name], 3) for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms", "total_ms")),
            round(line["share"] * 100, 1),
        ]
        for line in report.summarize(has_requests=has_requests)
    ]


def format_title(slow: SlowRequest) -> str:
    request = slow.request
    at = datetime.fromtimestamp(request.began_us / 1e6, UTC).isoformat(sep=" ", timespec="milliseconds")
    return (
        f"{request.operation}, {request.took_ns / 1e6:,.2f} ms, {request.outcome}, {at[:-6]} UTC, {request.request_id}"
    )


def build_bars(slow: SlowRequest) -> list[Bar]:
    """Build a bar for the request and one for each of its operations."""
    request = slow.request
    bars = [Bar(request.operation, 0.0, request.took_ns / 1e6, is_error=is_error(request.outcome))]
    bars += [
        Bar(
            operation.operation,
            (operation.began_us - request.began_us) / 1e3,
            operation.took_ns / 1e6,
            depth=1,
            is_error=is_error(operation.outcome),
        )
        for operation in slow.operations
    ]
    return bars


def _choose_charted(report: Report) -> list[str]:
    lines: list[dict[str, Any]] = [*report.summarize(has_requests=True), *report.summarize(has_requests=False)]
    return [line["operation"] for line in lines[:MAX_CHARTS]]


def _build_charts(report: Report, times: OperationTimes) -> list[LineChart | BarChart]:
    intervals = report.choose_intervals()
    starts = [(intervals.start_us + intervals.length_us * number) / 1e6 for number in range(intervals.count)]
    labels = [*(f"{bound:g}" for bound in BAR_BOUNDS_MS), "more"]
    return [
        LineChart(f"{times.operation}: duration over time", starts, times.compute_percentiles(intervals), "ms"),
        BarChart(f"{times.operation}: events by duration in ms", labels, times.count_by_duration(), "count"),
    ]


def _build_waterfall(slow: SlowRequest) -> Waterfall:
    return Waterfall(f"{format_title(slow)}; {slow.compute_own_ms():,.2f} ms in the process itself", build_bars(slow))
