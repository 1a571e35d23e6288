"""Run the end-to-end tests beside busy loops that take the processor: `python tools/run_busy.py [PYTEST ARGUMENTS]`.

Bounds that the service promises in seconds are only reported in this mode, see `tests/support/bounds.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
BUSY = "CONFIDE_TEST_BUSY"
BURNERS = 4
TEST_SECONDS = 1_200
# A burner also ends when its parent was killed.
BURN = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(10**6):
        pass
"""


@contextmanager
def run_burners(count: int = BURNERS) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run processes that keep the processor busy; always end them."""
    burners = [subprocess.Popen([sys.executable, "-c", BURN, str(os.getpid())]) for _ in range(count)]
    try:
        yield burners
    finally:
        for burner in burners:
            burner.kill()
        for burner in burners:
            burner.wait()


def run_tests(*args: str) -> int:
    """Run pytest beside the burners and return its exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "-o", f"timeout={TEST_SECONDS}"]
    with run_burners():
        tests = subprocess.Popen([*command, *(args or ("tests/end_to_end",))], cwd=ROOT, env={**os.environ, BUSY: "1"})
        try:
            return tests.wait()
        finally:
            tests.terminate()
            tests.wait()


def exit_on_signal(number: int, _frame: FrameType | None) -> None:
    """Leave through the `finally` clauses, which end the burners."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, exit_on_signal)
    sys.exit(run_tests(*sys.argv[1:]))
