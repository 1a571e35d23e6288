"""Closed-loop load by wrk on loopback, the same for every server."""

from __future__ import annotations

import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from running import measure_cpu_seconds

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
# One request per line, with | for line ends; chosen at random, or in turn.
SCRIPT = """
local requests = {}
for line in io.lines(os.getenv("BENCH_REQUESTS")) do requests[#requests + 1] = (line:gsub("|", "\\r\\n")) end
local in_turn = os.getenv("BENCH_IN_TURN") == "1"
local number = 0
function init() math.randomseed(1) end
function request()
  if not in_turn then return requests[math.random(#requests)] end
  number = number % #requests + 1
  return requests[number]
end
"""


@dataclass(frozen=True)
class Figures:
    """The result of one load."""

    requests: int
    errors: int
    seconds: float
    cpu_us: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def as_json(self) -> dict[str, float]:
        return {**asdict(self), "rate": self.rate}


def measure(
    pids: list[int],
    port: int,
    requests: list[bytes],
    *,
    folder: Path,
    connections: int = 32,
    seconds: float = 4,
    is_in_turn: bool = False,
) -> Figures:
    """Load a server with requests chosen at random or in turn. `pids` are the processes whose CPU time counts."""
    script, lines = folder / "load.lua", folder / "requests.txt"
    script.write_text(SCRIPT)
    lines.write_bytes(b"".join(request.replace(b"\r\n", b"|") + b"\n" for request in requests))
    before = sum(map(measure_cpu_seconds, pids))
    output = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--latency",
            "-s",
            script,
            f"http://127.0.0.1:{port}",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={"BENCH_REQUESTS": str(lines), "BENCH_IN_TURN": str(int(is_in_turn))},
    ).stdout
    spent = sum(map(measure_cpu_seconds, pids)) - before
    count, took = _parse_count(r"(\d+) requests in ([\d.]+)(\w+),", output)
    return Figures(
        requests=int(count),
        errors=_count_errors(output),
        seconds=took,
        cpu_us=spent / count * 1e6,
        p50_ms=_parse_latency(output, 50) * 1e3,
        p99_ms=_parse_latency(output, 99) * 1e3,
    )


def build_get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def build_post(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def _parse_count(pattern: str, output: str) -> tuple[float, float]:
    match = re.search(pattern, output)
    if match is None:
        raise RuntimeError(f"Cannot parse the output of wrk:\n{output}")
    return float(match[1]), float(match[2]) * _UNITS[match[3]]


def _parse_latency(output: str, percent: int) -> float:
    match = re.search(rf"{percent}%\s+([\d.]+)(\w+)", output)
    return float(match[1]) * _UNITS[match[2]] if match else float("nan")


def _count_errors(output: str) -> int:
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    sockets = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    return (int(refused[1]) if refused else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
