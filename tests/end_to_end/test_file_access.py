"""Files that the service cannot use, because of their owner, their mode or a read-only file system, are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from confide.cli.commands import EXIT_CODES
from support.app import TYPE
from support.postgres import PostgresServer
from support.processes import Service, run_service
from support.waiting import MAX_WAIT_SECONDS, wait_until

BEFORE = Path(__file__).parents[1] / "compatibility" / "store_before"
# Ends the privileges of root, for whom no file is inaccessible (PR_CAPBSET_DROP), and starts the service.
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
for capability in range(64):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "confide", *sys.argv[1:]])
"""
UNAVAILABLE = EXIT_CODES["confide.errors:DatabaseUnavailable"]


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, ...]:
    script = tmp_path / "unprivileged.py"
    script.write_text(WITHOUT_PRIVILEGES)
    return (str(script),)


def copy_store(data: Path) -> None:
    data.mkdir(parents=True)
    for name in ("confide.db", "master.keys", "checkpoints.jsonl"):
        shutil.copyfile(BEFORE / name, data / name)


@pytest.mark.parametrize(
    ("name", "mode", "code"),
    [
        ("master.keys", 0o000, 1),
        ("destroyed.keys", 0o000, 1),
        ("confide.lock", 0o000, 1),
        ("confide.db", 0o000, UNAVAILABLE),
        ("confide.db", 0o400, UNAVAILABLE),
        ("confide.db-wal", 0o000, UNAVAILABLE),
        (".", 0o500, UNAVAILABLE),
    ],
)
def test_a_file_that_the_service_cannot_use_is_named_in_one_sentence(
    tmp_path: Path, program: tuple[str, ...], name: str, mode: int, code: int
) -> None:
    service = Service(tmp_path, program=program)
    copy_store(service.data)
    path = service.data / name
    path.touch()
    path.chmod(mode)
    try:
        service.launch()
        assert service.process is not None
        assert service.process.wait(MAX_WAIT_SECONDS) == code
    finally:
        path.chmod(0o700)
        service.end()
    # The stamps of a folder that is not writable are missing too, which alone does not end the service.
    (line,) = [line for line in service.log.read_text().splitlines() if "stamps_unavailable" not in line]
    assert line.startswith("confide: ")
    assert f"confide-data/{name}".removesuffix("/.") in line


def test_files_of_another_user_in_the_folder_of_io_events_are_skipped(tmp_path: Path, program: tuple[str, ...]) -> None:
    folder = tmp_path / "confide-data" / "io"
    folder.mkdir(parents=True)
    (folder / "0.lock").touch(mode=0o000)
    (folder / "0.lock").chmod(0o000)
    with run_service(tmp_path, program=program) as service:
        service.add_admin()
        wait_until((folder / "1.db").exists, "the service writes its own file")
        assert "io_sink_failed" not in service.log.read_text()


def test_an_inaccessible_folder_of_io_events_is_named_in_the_log(tmp_path: Path, program: tuple[str, ...]) -> None:
    folder = tmp_path / "confide-data" / "io"
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    try:
        with run_service(tmp_path, program=program) as service:
            service.add_admin()
            wait_until(lambda: "io_sink_failed" in service.log.read_text(), "the failure is logged")
            assert "confide-data/io/0.lock: Permission denied" in service.log.read_text()
    finally:
        folder.chmod(0o700)


def test_the_data_folder_can_be_read_only_with_postgresql(
    tmp_path: Path, program: tuple[str, ...], postgres: PostgresServer
) -> None:
    database = postgres.new_database()
    with run_service(tmp_path, database=database) as service:
        token = service.add_admin()
        assert service.stop() == 0
    data = tmp_path / "confide-data"
    shutil.rmtree(data / "io", ignore_errors=True)
    data.chmod(0o500)
    try:
        with run_service(tmp_path, "--workers", "2", database=database, program=program) as service:
            with service.client(token) as client:
                document = {"tenant": "acme", "integration_type": TYPE, "configuration": {"host": "fis.example"}}
                client.post("/config", json=document).raise_for_status()
                params = {"tenant": "acme", "integration_type": TYPE}
                assert client.get("/config", params=params).json()["configuration"] == {"host": "fis.example"}
                assert client.get("/metrics").status_code == 200
            assert service.stop() == 0
    finally:
        data.chmod(0o700)
