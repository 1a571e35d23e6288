"""The I/O report: correct numbers, the slowest requests with their operations, and only the selected events."""

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
from support.processes import run_confide

NS_PER_MS = 1_000_000
BEGIN_US = 1_790_000_000_000_000


def build_row(
    id_: int,
    operation: str,
    began_ms: float,
    took_ms: float,
    *,
    parent: int | None = None,
    request_id: str | None = None,
    outcome: str = "ok",
) -> tuple[object, ...]:
    began_ns, took_ns = int(began_ms * NS_PER_MS), int(took_ms * NS_PER_MS)
    return (1, id_, parent, operation, began_ns, began_ns + took_ns, outcome, 1, request_id, None, None, None)


def write_files(folder: Path, *files: Sequence[tuple[object, ...]]) -> EventFiles:
    """Write one file per worker."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(files):
        connection = apsw.Connection(str(folder / f"{number}.db"))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(SCHEMA)
        connection.execute(NEW_CLOCK, ("w", BEGIN_US * 1_000))
        with connection:
            connection.executemany(build_insert(1), rows)
        connection.close()
    return EventFiles(folder)


def read_example(folder: Path) -> Report:
    """Write and read the events of two workers."""
    first = [
        build_row(2, "sql configs.read", 1, 2, parent=1, request_id="aa"),
        build_row(3, "commit", 5, 10, parent=1, request_id="aa"),
        build_row(1, "request POST /config", 0, 20, request_id="aa", outcome="200"),
        build_row(9, "notify", 30, 1, outcome="TimeoutError"),
    ]
    second = [
        build_row(5, "sql configs.read", 101, 3, parent=4, request_id="bb"),
        build_row(4, "request POST /config", 100, 5, request_id="bb", outcome="503"),
        build_row(6, "stream GET /watch", 0, 60_000, request_id="cc", outcome="200"),
        build_row(7, "cached GET /config", 50, 0.05, outcome="200"),
    ]
    return read_report(write_files(folder, first, second))


def test_the_report_has_a_line_for_each_operation_of_all_workers(tmp_path: Path) -> None:
    report = read_example(tmp_path)
    assert report.count_events() == 8
    lines = {line["operation"]: line for kind in (True, False) for line in report.summarize(has_requests=kind)}
    assert lines["request POST /config"] == {
        "operation": "request POST /config", "count": 2, "errors": 1, "p50_ms": 5.0, "p90_ms": 20.0, "p99_ms": 20.0,
        "max_ms": 20.0, "total_ms": 25.0, "share": 25 / (25 + 60_000 + 0.05),
    }  # fmt: skip
    operations = [line["operation"] for line in report.summarize(has_requests=False)]
    assert operations == ["commit", "sql configs.read", "notify"]
    assert lines["commit"]["share"] == 10 / 16
    assert (lines["notify"]["errors"], lines["sql configs.read"]["errors"]) == (1, 0)


def test_the_slowest_requests_have_their_operations(tmp_path: Path) -> None:
    report = read_example(tmp_path)
    slowest, second = report.slowest  # without the stream, which is long but not slow
    assert (slowest.request.request_id, second.request.request_id) == ("aa", "bb")
    assert [operation.operation for operation in slowest.operations] == ["sql configs.read", "commit"]
    assert slowest.compute_own_ms() == pytest.approx(8)
    assert second.compute_own_ms() == pytest.approx(2)


def test_the_document_of_a_slow_request_has_stable_members(tmp_path: Path) -> None:
    slowest = read_example(tmp_path).to_document()["slowest"][0]
    operation = {
        "id": 2, "parent": 1, "operation": "sql configs.read", "began_at": BEGIN_US + 1_000, "took": 2 * NS_PER_MS,
        "outcome": "ok", "amount": 1, "request_id": "aa",
    }  # fmt: skip
    assert slowest["operations"][0] == operation
    assert slowest.keys() == operation.keys() | {"unexplained_ms", "operations"}


def test_overlapping_operations_count_once_as_waiting(tmp_path: Path) -> None:
    rows = [
        build_row(2, "sql one", 1, 4, parent=1, request_id="aa"),
        build_row(3, "sql two", 2, 4, parent=1, request_id="aa"),
        build_row(4, "sql three", 3, 1, parent=1, request_id="aa"),
        build_row(1, "request GET /x", 0, 10, request_id="aa", outcome="200"),
    ]
    (slow,) = read_report(write_files(tmp_path, rows)).slowest
    assert slow.compute_own_ms() == pytest.approx(5)


def test_the_report_reads_only_the_selected_operations_and_time(tmp_path: Path) -> None:
    files = write_files(tmp_path, [build_row(n, f"sql {'odd' if n % 2 else 'even'}", n, 0.5) for n in range(100)])
    assert read_report(files, patterns=["sql o*"]).times.keys() == {"sql odd"}
    assert read_report(files, patterns=["commit", "sql even"]).count_events() == 50
    assert read_report(files, since_us=BEGIN_US + 90_000).count_events() == 10
    progress: list[int] = []
    assert read_report(files, on_progress=progress.append).count_events() == 100
    assert files.estimate_count() == progress[-1] == 100


def test_percentiles_are_nearest_ranks_and_the_bars_count_every_event(tmp_path: Path) -> None:
    durations_ms = [random.expovariate(1 / 5) for _ in range(1_000)]
    rows = [build_row(n, "sql", n, duration_ms) for n, duration_ms in enumerate(durations_ms)]
    report = read_report(write_files(tmp_path, rows))
    ordered_ns = sorted(int(duration_ms * NS_PER_MS) for duration_ms in durations_ms)
    line = report.summarize(has_requests=False)[0]
    for percent in (50, 90, 99):
        percentile_ns = line[f"p{percent}_ms"] * NS_PER_MS
        assert sum(value <= percentile_ns for value in ordered_ns) >= percent * 10
        assert sum(value < percentile_ns for value in ordered_ns) < percent * 10
    assert find_percentile([7], 99) == find_percentile([7], 1) == 7
    counts = report.times["sql"].count_by_duration()
    assert sum(counts) == 1_000
    assert counts[0] == sum(value <= BAR_BOUNDS_MS[0] * NS_PER_MS for value in ordered_ns)
    intervals = report.choose_intervals()
    percentiles = report.times["sql"].compute_percentiles(intervals)
    assert intervals == Intervals(BEGIN_US, 1_000_000, 1)
    assert len(percentiles["p50"]) == 1


def test_the_page_escapes_the_text_of_events(tmp_path: Path) -> None:
    html = "</script><script>alert(1)</script><b>&\"'"
    rows = [
        build_row(1, f"request {html}", 0, 1, request_id="aa", outcome=html),
        build_row(2, f"sql {html}", 0, 1, parent=1, request_id="aa"),
    ]
    page = render_report(read_report(write_files(tmp_path, rows)), source=html)
    assert "alert(1)</script><b>" not in page
    assert page.count("<script") == 2


def test_the_command_writes_a_table_json_or_a_page_and_explains_invalid_input(tmp_path: Path) -> None:
    read_example(tmp_path / "data" / "io")
    done = run_confide("io", "report", "--data", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sql configs.read" in done.stdout
    assert "in the process itself" in done.stdout
    done = run_confide("io", "report", "--data", "data", "--json", "--op", "commit", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (document["events"], document["operations"][0]["operation"]) == (1, "commit")
    done = run_confide("io", "report", "--data", "data", "--html", "page.html", cwd=tmp_path)
    assert done.stdout == "8 events in page.html.\n"
    (tmp_path / "damaged" / "io").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged" / "io" / "0.db").write_text("not a database" * 1_000)
    # A worker has created this file but not its tables.
    (tmp_path / "data" / "io" / "9.db").touch()
    for args, message in (
        (("--data", "nowhere"), "no data folder nowhere"),
        (("--data", "empty"), "no I/O events in empty/io"),
        (("--data", "data", "--op", "nothing"), "No event matches"),
        (("--data", "data", "--since", "soon"), "Write a duration such as"),
        (("--data", "data", "--since", "2026-11-24T09:15:00"), "or a time with a zone"),
        (("--data", "data", "--since", "2026-13-24T09:15:00Z"), "or a time with a zone"),
        (("--data", "data", "--op", "nothing", "--since", "999999999d"), "No event matches"),
        (("--data", "damaged"), "Cannot read damaged/io/0.db"),
    ):
        done = run_confide("io", "report", *args, cwd=tmp_path)
        assert done.returncode != 0
        assert message in done.stderr
