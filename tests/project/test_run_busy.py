"""`make test-busy` ends its busy loops after any end of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import bounds
from support.processes import list_group, start_process
from support.waiting import wait_until

TOOL = Path(__file__).parents[2] / "tools" / "run_busy.py"
PROGRAM = f"""
import sys
sys.path.insert(0, {str(TOOL.parent)!r})
import run_busy, signal, time
signal.signal(signal.SIGTERM, run_busy.exit_on_signal)
with run_busy.run_burners(2):
    print("running", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_burners_end_with_their_parent(number: signal.Signals) -> None:
    with start_process([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        assert len(list_group(process.pid)) == 3
        process.send_signal(number)
        process.wait()
        wait_until(lambda: not list_group(process.pid), "the burners have ended")


def test_the_tests_run_in_busy_mode_and_their_exit_code_is_kept(tmp_path: Path) -> None:
    test = tmp_path / "test_mode.py"
    test.write_text(f"import os\n\ndef test_mode():\n    assert os.environ[{bounds.BUSY!r}] == '2'\n")
    done = subprocess.run(
        [sys.executable, TOOL, "-n", "0", "--rootdir", tmp_path, "-c", "/dev/null", test],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "assert '1' == '2'" in done.stdout
