"""The report as one page for a browser."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from confide.reports.pages import Bar, BarChart, Charts, LineChart, Part, Table, Text, Waterfall, page
from confide.telemetry.histograms import is_error
from confide.telemetry.report import ENDS, Report, SlowRequest, Times

MAX_CHARTS = 30
COLUMNS = ("operation", "count", "errors", "p50 ms", "p90 ms", "p99 ms", "max ms", "total ms", "share %")


def report_page(report: Report, *, what: str) -> str:
    """Write the report as a page that stands alone; `what` says of where and when it is."""
    return page(f"Confide: I/O of {what}", _parts(report))


def _parts(report: Report) -> Iterator[Part]:
    yield Text(
        "Requests",
        "How long requests took, from its head until its answer was handed over.",
    )
    yield Table(COLUMNS, table_rows(report, whole=True))
    yield Text("Operations", "What was waited for outside the process; a share is of all such time.")
    yield Table(COLUMNS, table_rows(report, whole=False))
    yield Text("Over time", "Drag over a part of a chart to look closer, click twice to look at all of it again.")
    yield Charts({line["operation"]: _charts(report, report.times[line["operation"]]) for line in _charted(report)})
    yield Text("Slowest requests", "Each with what was waited for on its behalf.")
    for slow in report.slowest:
        yield _waterfall(slow)


def table_rows(report: Report, *, whole: bool) -> list[list[object]]:
    """The lines of the report as rows under `COLUMNS`."""
    return [
        [
            line["operation"],
            line["count"],
            line["errors"],
            *(round(line[name], 3) for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms", "total_ms")),
            round(line["share"] * 100, 1),
        ]
        for line in report.lines(whole=whole)
    ]


def title_of(slow: SlowRequest) -> str:
    request = slow.request
    at = datetime.fromtimestamp(request.began_at / 1e6, UTC).isoformat(sep=" ", timespec="milliseconds")
    return f"{request.operation}, {request.took / 1e6:,.2f} ms, {request.outcome}, {at[:-6]} UTC, {request.request_id}"


def bars_of(slow: SlowRequest) -> list[Bar]:
    """The request and what was waited for, in milliseconds from its beginning."""
    request = slow.request
    bars = [Bar(request.operation, 0.0, request.took / 1e6, is_bad=is_error(request.outcome))]
    bars += [
        Bar(one.operation, (one.began_at - request.began_at) / 1e3, one.took / 1e6, 1, is_bad=is_error(one.outcome))
        for one in slow.operations
    ]
    return bars


def _charted(report: Report) -> list[dict[str, Any]]:
    return [*report.lines(whole=True), *report.lines(whole=False)][:MAX_CHARTS]


def _charts(report: Report, times: Times) -> list[LineChart | BarChart]:
    begin, step, steps = report.steps()
    when = [(begin + step * number) / 1e6 for number in range(steps)]
    labels = [*(f"{end:g}" for end in ENDS), "more"]
    return [
        LineChart(f"{times.operation}: how long it took", when, times.over_time(begin, step, steps), "ms"),
        BarChart(f"{times.operation}: up to so many ms", labels, times.histogram(), "count"),
    ]


def _waterfall(slow: SlowRequest) -> Waterfall:
    return Waterfall(f"{title_of(slow)}; {slow.unexplained_ms():,.2f} ms in the process itself", bars_of(slow))
