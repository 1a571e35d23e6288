"""Workers share their metrics through files, which belong to one service."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from confide.telemetry import metrics_files
from confide.telemetry.metrics_files import RUNTIME_VARIABLE, WorkerMetricsFiles, create_metrics_folder
from confide.telemetry.metrics_page import MetricValues, merge_values
from support.app import ADMIN, RunningApp


def build_values(count: float, level: float) -> MetricValues:
    return MetricValues({("reads", "memory"): count}, {("entries",): level, ("age",): level})


def merge_others(files: WorkerMetricsFiles) -> MetricValues:
    return merge_values(files.read_others(), highest=frozenset({"age"}))


def end_worker(files: WorkerMetricsFiles) -> None:
    assert files._file is not None
    os.close(files._file.lock)


def test_a_worker_reads_the_values_of_the_others(tmp_path: Path) -> None:
    workers = [WorkerMetricsFiles(tmp_path) for _ in range(3)]
    for level, worker in enumerate(workers):
        worker.write(build_values(10, level))
    assert merge_others(workers[0]) == ({("reads", "memory"): 20}, {("entries",): 3, ("age",): 2})


def test_the_counts_of_ended_workers_stay_and_their_gauges_do_not(tmp_path: Path) -> None:
    reader, ended, following = (WorkerMetricsFiles(tmp_path) for _ in range(3))
    reader.write(build_values(0, 0))
    ended.write(build_values(10, 5))
    end_worker(ended)
    assert merge_others(reader) == ({("reads", "memory"): 10}, {})
    following.write(build_values(1, 2))
    assert merge_others(reader) == ({("reads", "memory"): 11}, {("entries",): 2, ("age",): 2})
    assert merge_others(following).counters == {("reads", "memory"): 10}
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_a_worker_continues_after_its_folder_was_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    reader, writer = WorkerMetricsFiles(folder), WorkerMetricsFiles(folder)
    for files in (reader, writer):
        files.write(build_values(10, 1))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    for files in (reader, writer, reader):
        files.write(build_values(11, 1))
    assert merge_others(reader) == ({("reads", "memory"): 11}, {("entries",): 1, ("age",): 1})


def test_a_worker_continues_after_its_lock_file_was_deleted(tmp_path: Path) -> None:
    """As by a cleaner of temporary files, which the age of the file misleads. A reader must not create it again."""
    reader, writer = WorkerMetricsFiles(tmp_path), WorkerMetricsFiles(tmp_path)
    for files in (reader, writer):
        files.write(build_values(10, 1))
    (tmp_path / "1.lock").unlink()
    assert merge_others(reader).gauges == {}
    writer.write(build_values(11, 1))
    assert merge_others(reader) == ({("reads", "memory"): 11}, {("entries",): 1, ("age",): 1})


def test_a_service_deletes_its_folder_and_those_of_killed_services_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNTIME_VARIABLE, str(tmp_path))
    killed = tmp_path / f"{metrics_files.PREFIX}killed"
    killed.mkdir()
    (killed / "0.json").touch()
    with create_metrics_folder(tmp_path / "data") as first, create_metrics_folder(tmp_path / "data") as second:
        assert {first, second} == set(tmp_path.iterdir())
        assert first.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_where_the_process_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUNTIME_VARIABLE, raising=False)
    monkeypatch.setattr(metrics_files, "MEMORY", tmp_path / "missing")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing too"))
    with create_metrics_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
    with (
        pytest.raises(OSError, match=r"^Cannot create a folder for metrics in .*missing.*nowhere\.$"),
        create_metrics_folder(tmp_path / "nowhere"),
    ):
        pass


async def test_a_worker_that_cannot_write_its_file_still_serves_its_own_metrics(
    sqlite_app: RunningApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    sqlite_app.process.metrics._files = WorkerMetricsFiles(tmp_path / "file")
    token = await sqlite_app.create_token("root", *ADMIN)
    for _ in range(2):
        page = await sqlite_app.request("GET", "/metrics", token=token)
        assert page.status_code == 200
        assert "confide_workers 1.0" in page.text
    warnings = [record.getMessage() for record in caplog.records if "metrics_file" in record.getMessage()]
    path = tmp_path / "file"
    assert warnings == [f"metrics_file_unwritable path={path} reason=[Errno 17] File exists: '{path}'"]
