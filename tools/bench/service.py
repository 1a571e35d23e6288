"""Run Confide as its users do, on a filled database, and build requests for it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from load import build_get, build_post
from running import UVICORN, find_free_port, run_program
from seeds import Seeded, build_key

READY_SECONDS = 30.0


@contextmanager
def run_confide(
    folder: Path,
    seeded: Seeded,
    *options: str,
    durable: bool = False,
    cache_bytes: int | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[tuple[int, int]]:
    """Run `confide serve`. Yield the process ID and the port."""
    port = find_free_port()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "confide",
        "serve",
        "--port",
        str(port),
        "--data",
        seeded.settings.data,
        *options,
    ]
    env = {"CONFIDE_DATABASE": seeded.settings.database_url, **(env or {})}
    if not durable:
        command.append("--unsafe-durability")
    if cache_bytes is not None:
        env["CONFIDE_CACHE_BYTES"] = str(cache_bytes)
    with run_program(command, port=port, log=folder / "confide.log", env=env) as pid:
        _wait_until_ready(port)
        yield pid, port


@contextmanager
def run_asgi_frame(folder: Path, seeded: Seeded) -> Iterator[tuple[int, int]]:
    """Run the ASGI application on uvicorn, without the fast path."""
    port = find_free_port()
    command = [sys.executable, *UVICORN, "--http", "httptools", "--port", str(port)]
    env = {
        "CONFIDE_DATABASE": seeded.settings.database_url,
        "CONFIDE_DATA": str(seeded.settings.data),
        "CONFIDE_UNSAFE_DURABILITY": "true",
    }
    with run_program(
        [*command, "--factory", "confide.server.supervisor:application"],
        port=port,
        log=folder / "asgi-frame.log",
        env=env,
    ) as pid:
        _wait_until_ready(port)
        yield pid, port


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise RuntimeError("Confide did not become ready")


def build_reads(seeded: Seeded, numbers: range, *headers: str) -> list[bytes]:
    bearer = f"Authorization: Bearer {seeded.reader}"
    return [
        build_get(f"/config?tenant={at.tenant}&integration_type={at.integration_type}", bearer, *headers)
        for at in map(build_key, numbers)
    ]


def build_unique_reads(seeded: Seeded, count: int, among: int) -> list[bytes]:
    """Build reads whose request heads all differ, as they do with trace headers."""
    return [
        build_reads(
            seeded, range(number % among, number % among + 1), f"traceparent: 00-{number:032x}-{number:016x}-01"
        )[0]
        for number in range(count)
    ]


def build_merges(seeded: Seeded, numbers: range) -> list[bytes]:
    """Build merges of one member, most of which change its value."""
    found = []
    for number in numbers:
        at = build_key(number)
        for value in range(7):
            document = {
                "tenant": at.tenant,
                "integration_type": at.integration_type,
                "configuration": {"password": f"changed {value}"},
            }
            body = json.dumps(document, separators=(",", ":")).encode()
            found.append(build_post("/config", body, f"Authorization: Bearer {seeded.admin}"))
    return found


def measure_start_seconds(folder: Path, seeded: Seeded) -> float:
    """Measure the time from the start of the process until it is ready."""
    start = time.monotonic()
    with run_confide(folder, seeded):
        return time.monotonic() - start


async def measure_propagation_seconds(ports: tuple[int, int], seeded: Seeded, *, count: int = 200) -> list[float]:
    """Measure how long after a save at one process another process returns that version."""
    found = []
    save_reader, save_writer = await asyncio.open_connection("127.0.0.1", ports[0])
    read_reader, read_writer = await asyncio.open_connection("127.0.0.1", ports[1])
    (read,) = build_reads(seeded, range(1))
    at = build_key(0)
    for number in range(count):
        document = {
            "tenant": at.tenant,
            "integration_type": at.integration_type,
            "configuration": {"password": f"version {number}"},
        }
        save = build_post("/config", json.dumps(document).encode(), f"Authorization: Bearer {seeded.admin}")
        _, body = await _send(save_reader, save_writer, save)
        saved_version = json.loads(body)["version"]
        saved_at = time.monotonic()
        read_version = 0
        while read_version < saved_version:
            read_at = time.monotonic()
            head, _ = await _send(read_reader, read_writer, read)
            read_version = int(head.partition(b"config-version: ")[2].partition(b"\r\n")[0])
        found.append(max(read_at - saved_at, 0.0))
        await asyncio.sleep(0.02)
    save_writer.close()
    read_writer.close()
    return found


async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[bytes, bytes]:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head, await reader.readexactly(length)
