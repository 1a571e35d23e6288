"""Start programs for a measurement, and measure their processor time and memory."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 40.0
# The same server options for the bare function and for the ASGI frame of Confide.
UVICORN = ("-m", "uvicorn", "--no-access-log", "--no-proxy-headers", "--no-server-header", "--log-level", "error")


def find_free_port() -> int:
    """Find a free port below the ephemeral range, which the connections of a load use."""
    while True:
        port = random.SystemRandom().randrange(10_000, 12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def measure_cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process, its reaped children and its living descendants."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(int(value) for value in fields[11:15]) / TICKS
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(measure_cpu_seconds(int(child)) for child in children)


def measure_memory_bytes(pid: int) -> int:
    """Return the resident memory of a process and its living descendants."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(measure_memory_bytes(int(child)) for child in children)


@contextmanager
def run_program(
    command: Sequence[str | Path], *, port: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a program that listens on a port, and yield its process ID. It ends with the block."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=out,
            stderr=out,
            env={**os.environ, **(env or {})},
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        _wait(process, port, log)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen:\n{log.read_text(errors='replace')[-2_000:]}")
