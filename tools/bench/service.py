"""Confide itself, started as its users start it, on a store that was filled before."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from load import get, post
from running import UVICORN, free_port, running
from seeds import Seeded, key

READY_SECONDS = 30.0


@contextmanager
def confide(
    folder: Path,
    seeded: Seeded,
    *options: str,
    durable: bool = False,
    cache_bytes: int | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[tuple[int, int]]:
    """`confide serve`; yields its process id and port."""
    port = free_port()
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
    with running(command, port=port, log=folder / "confide.log", env=env) as pid:
        _until_ready(port)
        yield pid, port


@contextmanager
def asgi_frame(folder: Path, seeded: Seeded) -> Iterator[tuple[int, int]]:
    """The application on the server's own protocol class, as on any other server."""
    port = free_port()
    command = [sys.executable, *UVICORN, "--http", "httptools", "--port", str(port)]
    env = {
        "CONFIDE_DATABASE": seeded.settings.database_url,
        "CONFIDE_DATA": str(seeded.settings.data),
        "CONFIDE_UNSAFE_DURABILITY": "true",
    }
    with running(
        [*command, "--factory", "confide.server.supervisor:application"],
        port=port,
        log=folder / "asgi-frame.log",
        env=env,
    ) as pid:
        _until_ready(port)
        yield pid, port


def _until_ready(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise RuntimeError("Confide does not become ready")


def reads(seeded: Seeded, numbers: range, *headers: str) -> list[bytes]:
    bearer = f"Authorization: Bearer {seeded.reader}"
    return [
        get(f"/config?tenant={at.tenant}&integration_type={at.integration_type}", bearer, *headers)
        for at in map(key, numbers)
    ]


def never_seen(seeded: Seeded, count: int, among: int) -> list[bytes]:
    """Reads of a few keys whose heads are all unlike each other, as those are that carry a trace."""
    return [
        reads(seeded, range(number % among, number % among + 1), f"traceparent: 00-{number:032x}-{number:016x}-01")[0]
        for number in range(count)
    ]


def merges(seeded: Seeded, numbers: range) -> list[bytes]:
    """Merges that change something each time with great likelihood, and nothing but one member."""
    found = []
    for number in numbers:
        at = key(number)
        for value in range(7):
            document = {
                "tenant": at.tenant,
                "integration_type": at.integration_type,
                "configuration": {"password": f"changed {value}"},
            }
            body = json.dumps(document, separators=(",", ":")).encode()
            found.append(post("/config", body, f"Authorization: Bearer {seeded.admin}"))
    return found


def start_seconds(folder: Path, seeded: Seeded) -> float:
    """From the start of the process to its first answer that it is ready."""
    began = time.monotonic()
    with confide(folder, seeded):
        return time.monotonic() - began


async def news_seconds(ports: tuple[int, int], seeded: Seeded, *, count: int = 200) -> list[float]:
    """How long after a save was answered by one process another shows it, asked again and again."""
    found = []
    save_reader, save_writer = await asyncio.open_connection("127.0.0.1", ports[0])
    read_reader, read_writer = await asyncio.open_connection("127.0.0.1", ports[1])
    (request,) = reads(seeded, range(1))
    at = key(0)

    async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[bytes, bytes]:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head, await reader.readexactly(length)

    for number in range(count):
        document = {
            "tenant": at.tenant,
            "integration_type": at.integration_type,
            "configuration": {"password": f"news {number}"},
        }
        save = post("/config", json.dumps(document).encode(), f"Authorization: Bearer {seeded.admin}")
        _, body = await asked(save_reader, save_writer, save)
        version = json.loads(body)["version"]
        answered = time.monotonic()
        shown = 0
        while shown < version:
            asked_at = time.monotonic()
            answer, _ = await asked(read_reader, read_writer, request)
            shown = int(answer.partition(b"config-version: ")[2].partition(b"\r\n")[0])
        found.append(max(asked_at - answered, 0.0))
        await asyncio.sleep(0.02)
    save_writer.close()
    read_writer.close()
    return found
