"""The systemd unit is valid and hardened, and the service runs under its restrictions of memory and privileges."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from confide.cli.commands import EXIT_CODES
from confide.server.supervisor import DRAIN_SECONDS
from support.processes import run_service

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "ops" / "systemd" / "confide.service"
# The measure of `systemd-analyze security`: from 0 to 100, which is that of an unrestricted service.
MAX_EXPOSURE = 13
# The kernel then refuses memory that is both writable and executable, as MemoryDenyWriteExecute does (Linux 6.3).
DENY_WRITE_EXECUTE = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):
    sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execv(sys.executable, [sys.executable, "-m", "confide", *sys.argv[1:]])
"""


def analyze(unit: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on a unit. Without it, skip the test, and fail in CI."""
    program = shutil.which("systemd-analyze")
    if program is None:
        reason = "THE SYSTEMD UNIT WAS NOT CHECKED: systemd-analyze is missing. apt-get install systemd"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return subprocess.run(
        [program, *args, unit], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


def copy_unit(folder: Path, *, without: str = "") -> Path:
    """Copy the unit, with a command that exists here."""
    text = re.sub(r"^ExecStart=.*$", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE)
    copy = folder / UNIT.name
    copy.write_text("".join(line for line in text.splitlines(keepends=True) if not without or without not in line))
    return copy


def test_systemd_accepts_every_line_of_the_unit(tmp_path: Path) -> None:
    done = analyze(copy_unit(tmp_path), "verify", "--man=no")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_deliberately_misspelled_line_is_found(tmp_path: Path) -> None:
    unit = copy_unit(tmp_path)
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHomes="))
    assert "ProtectHomes" in analyze(unit, "verify", "--man=no").stdout


def analyze_exposure(unit: Path) -> subprocess.CompletedProcess[str]:
    return analyze(unit, "security", "--offline=true", "--no-pager", f"--threshold={MAX_EXPOSURE}")


def test_the_exposure_is_low(tmp_path: Path) -> None:
    done = analyze_exposure(copy_unit(tmp_path))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("line", ["CapabilityBoundingSet=", "SystemCallFilter=", "PrivateUsers="])
def test_a_deliberately_removed_restriction_exceeds_the_limit(tmp_path: Path, line: str) -> None:
    assert analyze_exposure(copy_unit(tmp_path, without=line)).returncode != 0


def test_the_unit_gives_the_service_time_to_stop_and_starts_it_again_only_if_that_can_help() -> None:
    text = UNIT.read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) >= 2 * DRAIN_SECONDS
    permanent = re.search(r"^RestartPreventExitStatus=(.+)$", text, re.MULTILINE)
    assert permanent is not None
    names = ("MasterKeyMissing", "NewerSchema", "UnsafeDurability")
    codes = {code for error, code in EXIT_CODES.items() if error.endswith(names)}
    # 2 is a wrong command line or setting.
    assert {int(code) for code in permanent[1].split()} == {2} | codes


def test_the_service_runs_without_writable_executable_memory(tmp_path: Path) -> None:
    script = tmp_path / "deny.py"
    script.write_text(DENY_WRITE_EXECUTE)
    with run_service(tmp_path, "--workers", "2", program=(str(script),)) as service:
        token = service.add_admin()
        with service.client(token) as client:
            document = {"tenant": "acme", "integration_type": "crm", "configuration": {"host": "crm.example"}}
            client.post("/config", json=document).raise_for_status()
            assert client.get("/metrics").status_code == 200
        assert service.stop() == 0
