"""The report: right numbers, the slowest requests with what was done for them, and only what was asked for."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from confide.telemetry.event_files import EventFiles
from confide.telemetry.report import BAR_BOUNDS_MS, Intervals, Report, find_percentile, read_report
from confide.telemetry.report_page import render_report
from confide.telemetry.sinks.sqlite import NEW_CLOCK, SCHEMA, build_insert
from support.processes import confide

MS = 1_000_000
BEGIN = 1_790_000_000_000_000


def row(
    id_: int,
    operation: str,
    began_ms: float,
    took_ms: float,
    *,
    parent: int | None = None,
    request: str | None = None,
    outcome: str = "ok",
) -> tuple[object, ...]:
    began_ns, took_ns = int(began_ms * MS), int(took_ms * MS)
    return (1, id_, parent, operation, began_ns, began_ns + took_ns, outcome, 1, request, None, None, None)


def written(folder: Path, *files: Sequence[tuple[object, ...]]) -> EventFiles:
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(files):
        connection = apsw.Connection(str(folder / f"{number}.db"))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(SCHEMA)
        connection.execute(NEW_CLOCK, ("w", BEGIN * 1_000))
        with connection:
            connection.executemany(build_insert(1), rows)
        connection.close()
    return EventFiles(folder)


def example(folder: Path) -> Report:
    first = [
        row(2, "sql configs.read", 1, 2, parent=1, request="aa"),
        row(3, "commit", 5, 10, parent=1, request="aa"),
        row(1, "request POST /config", 0, 20, request="aa", outcome="200"),
        row(9, "notify", 30, 1, outcome="TimeoutError"),
    ]
    # The same request id cannot be another worker's; a request of its own is.
    second = [
        row(5, "sql configs.read", 101, 3, parent=4, request="bb"),
        row(4, "request POST /config", 100, 5, request="bb", outcome="503"),
        row(6, "stream GET /watch", 0, 60_000, request="cc", outcome="200"),
        row(7, "cached GET /config", 50, 0.05, outcome="200"),
    ]
    return read_report(written(folder, first, second))


def test_each_operation_has_its_line_and_all_workers_are_read_together(tmp_path: Path) -> None:
    report = example(tmp_path)
    assert report.count_events() == 8
    lines = {line["operation"]: line for whole in (True, False) for line in report.summarize(of_requests=whole)}
    assert lines["request POST /config"] == {
        "operation": "request POST /config", "count": 2, "errors": 1, "p50_ms": 5.0, "p90_ms": 20.0, "p99_ms": 20.0,
        "max_ms": 20.0, "total_ms": 25.0, "share": 25 / (25 + 60_000 + 0.05),
    }  # fmt: skip
    assert [line["operation"] for line in report.summarize(of_requests=False)] == [
        "commit",
        "sql configs.read",
        "notify",
    ]
    assert lines["commit"]["share"] == 10 / 16
    assert (lines["notify"]["errors"], lines["sql configs.read"]["errors"]) == (1, 0)


def test_the_slowest_requests_come_with_what_was_done_for_them(tmp_path: Path) -> None:
    report = example(tmp_path)
    slow, other = report.slowest  # a stream is not slow, it lasts
    assert (slow.request.request_id, other.request.request_id) == ("aa", "bb")
    assert [one.operation for one in slow.operations] == ["sql configs.read", "commit"]
    assert slow.compute_own_ms() == pytest.approx(8)
    assert other.compute_own_ms() == pytest.approx(2)


def test_what_overlaps_is_not_counted_twice_as_waiting(tmp_path: Path) -> None:
    rows = [
        row(2, "sql one", 1, 4, parent=1, request="aa"),
        row(3, "sql two", 2, 4, parent=1, request="aa"),
        row(4, "sql three", 3, 1, parent=1, request="aa"),
        row(1, "request GET /x", 0, 10, request="aa", outcome="200"),
    ]
    (slow,) = read_report(written(tmp_path, rows)).slowest
    assert slow.compute_own_ms() == pytest.approx(5)


def test_only_what_was_asked_for_is_read(tmp_path: Path) -> None:
    files = written(tmp_path, [row(n, f"sql {'odd' if n % 2 else 'even'}", n, 0.5) for n in range(100)])
    assert read_report(files, patterns=["sql o*"]).times.keys() == {"sql odd"}
    assert read_report(files, patterns=["commit", "sql even"]).count_events() == 50
    late = read_report(files, since_us=BEGIN + 90_000)
    assert late.count_events() == 10
    told: list[int] = []
    assert read_report(files, on_progress=told.append).count_events() == files.estimate_count() == told[-1] == 100


def test_percentiles_are_nearest_ranks_and_histograms_hold_everything(tmp_path: Path) -> None:
    values = [random.expovariate(1 / 5) for _ in range(1_000)]
    report = read_report(written(tmp_path, [row(n, "sql", n, value) for n, value in enumerate(values)]))
    ordered = sorted(int(value * MS) for value in values)
    line = report.summarize(of_requests=False)[0]
    for percent in (50, 90, 99):
        below = sum(value <= line[f"p{percent}_ms"] * MS for value in ordered)
        assert below >= percent * 10
        assert sum(value < line[f"p{percent}_ms"] * MS for value in ordered) < percent * 10
    assert find_percentile([7], 99) == find_percentile([7], 1) == 7
    counts = report.times["sql"].count_by_duration()
    assert sum(counts) == 1_000
    assert counts[0] == sum(value <= BAR_BOUNDS_MS[0] * MS for value in ordered)
    intervals = report.choose_intervals()
    parts = report.times["sql"].compute_percentiles(intervals)
    assert (intervals, len(parts["p50"])) == (Intervals(BEGIN, 1_000_000, 1), 1)


def test_an_event_of_any_text_stays_text_on_the_page(tmp_path: Path) -> None:
    nasty = "</script><script>alert(1)</script><b>&\"'"
    rows = [
        row(1, f"request {nasty}", 0, 1, request="aa", outcome=nasty),
        row(2, f"sql {nasty}", 0, 1, parent=1, request="aa"),
    ]
    page = render_report(read_report(written(tmp_path, rows)), source=nasty)
    assert "alert(1)</script><b>" not in page
    assert page.count("<script") == 2


def test_the_command_shows_a_table_json_and_a_page_and_says_what_is_missing(tmp_path: Path) -> None:
    example(tmp_path / "there" / "io")
    done = confide("io", "report", "--data", "there", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sql configs.read" in done.stdout
    assert "in the process itself" in done.stdout
    done = confide("io", "report", "--data", "there", "--json", "--op", "commit", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (document["events"], document["operations"][0]["operation"]) == (1, "commit")
    done = confide("io", "report", "--data", "there", "--html", "page.html", cwd=tmp_path)
    assert done.stdout == "8 events in page.html.\n"
    (tmp_path / "rubbish" / "io").mkdir(parents=True)
    (tmp_path / "bare").mkdir()
    (tmp_path / "rubbish" / "io" / "0.db").write_text("no database" * 1_000)
    # What a worker has just made, before anything is in it.
    (tmp_path / "there" / "io" / "9.db").touch()
    for args, said in (
        (("--data", "nowhere"), "no data folder nowhere"),
        (("--data", "bare"), "no I/O events in bare/io"),
        (("--data", "there", "--op", "nothing"), "Nothing that was asked for"),
        (("--data", "there", "--since", "soon"), "neither a span such as"),
        (("--data", "there", "--since", "2026-11-24T09:15:00"), "nor a time with its zone"),
        (("--data", "there", "--since", "2026-13-24T09:15:00Z"), "nor a time with its zone"),
        (("--data", "there", "--op", "nothing", "--since", "999999999d"), "Nothing that was asked for"),
        (("--data", "rubbish"), "Cannot read rubbish/io/0.db"),
    ):
        done = confide("io", "report", *args, cwd=tmp_path)
        assert done.returncode != 0
        assert said in done.stderr
