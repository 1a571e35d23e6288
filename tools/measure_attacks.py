"""Measure what each attack on availability takes from the cached reads of another tenant (`make attacks`).

For each attack, a service with one worker answers cached reads of a victim: first alone, then while attackers send
the requests of the attack without a pause. Prints the rate and the 99th percentile of the reads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools" / "bench"))

from running import find_free_port, run_program  # noqa: E402 - after the path is set

READY_SECONDS = 60.0
PASSWORD = "violet kettle on the moon"  # noqa: S105 - of a service that this script starts and ends
EMPTY_OBJECTS = b'{"a":[' + b"{}," * 85_990 + b"{}]}"
NAMES = [f"n{number}" for number in range(10)]
_RATE = re.compile(r"Requests/sec:\s+([0-9.]+)")
_P99 = re.compile(r"99%\s+([0-9.]+)(us|ms|s)")
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Attack(NamedTuple):
    """The requests of an attack: each connection repeats one of them."""

    name: str
    requests: list[bytes]
    connections: int = 8


class Reads(NamedTuple):
    """The reads of the victim: their number in a second, and their 99th percentile."""

    rate: float
    p99_milliseconds: float


def build_request(method: str, path: str, *, token: str | None = None, body: bytes = b"", more: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if body:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if more:
        lines.append(more)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextmanager
def run_service(folder: Path) -> Iterator[int]:
    port = find_free_port()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "confide",
        "serve",
        "--port",
        str(port),
        "--data",
        folder / "data",
    ]
    with run_program([*command, "--unsafe-durability"], port=port, log=folder / "confide.log", env={}):
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ready(port):
            if time.monotonic() > deadline:
                raise TimeoutError("The service did not become ready.")
            time.sleep(0.05)
        yield port


def _is_ready(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health/ready", timeout=2).is_success
    except httpx2.HTTPError:
        return False


class Setup:
    """Users, types and configs of the measurement."""

    def __init__(self, port: int) -> None:
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self._call("POST", "/user", {"login": "root", "password": PASSWORD}, None)
        self.admin = self._call("POST", "/login", {"login": "root", "password": PASSWORD}, None)["token"]
        self.editor = self._add("editor", "acme")
        self.viewer = self._add("viewer", "acme")
        self.reader = self._add("reader", "victim")
        self._add_type("names", {"properties": {"a": {"items": {"required": NAMES}}}})
        self._add_type("hundred", {"properties": {"a": {"items": {"required": [f"n{i}" for i in range(100)]}}}})
        dependent = {f"n{number}": ["x"] for number in range(1_900)}
        self._add_type("dependent", {"properties": {"a": {"items": {"dependentRequired": dependent}}}})
        patterns = {f"^m{number}.*": {"type": "integer"} for number in range(90)}
        self._add_type("patterns", {"patternProperties": patterns})
        self.save("victim", "small", {"username": "a", "url": "https://session.manager.svc"})
        many: dict[str, Any] = {"a": [{} for _ in range(70_000)]}
        members = {f"m{number}": number for number in range(1_999)}
        for name in ("names", "plain"):
            self.save("acme", name, many)
            self.save("acme", name, {"b": 1, **many})
        for number in range(5):
            self.save("acme", "patterns", {**members, "x": number})

    def save(self, tenant: str, type_: str, configuration: Any) -> None:
        document = {"tenant": tenant, "integration_type": type_, "configuration": configuration}
        self._call("POST", "/config", document, self.admin)

    def _add(self, role: str, tenant: str) -> str:
        grants = [{"role": role, "tenant": tenant, "integration_type": "*"}]
        self._call("POST", "/user", {"login": role, "grants": grants}, self.admin)
        token: str = self._call("POST", "/tokens", {"label": "attack", "login": role}, self.admin)["token"]
        return token

    def _add_type(self, name: str, schema: Any) -> None:
        self._call("PUT", f"/integration-types/{name}", {"schema": schema}, self.admin)

    def _call(self, method: str, path: str, document: Any, token: str | None) -> Any:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        reply = self._http.request(method, path, json=document, headers=headers)
        if not reply.is_success:
            raise RuntimeError(f"{method} {path}: {reply.text[:300]}")
        return reply.json()


def build_attacks(setup: Setup) -> list[Attack]:
    def save(type_: str, configuration: Any) -> bytes:
        document = {"tenant": "acme", "integration_type": type_, "configuration": configuration}
        body = json.dumps(document, separators=(",", ":")).encode()
        return build_request("PUT", "/config", token=setup.editor, body=body)

    def view(path: str) -> list[bytes]:
        return [build_request("GET", path, token=setup.viewer, more="Cache-Control: no-cache")]

    empty: list[Any] = [{} for _ in range(9_900)]
    large: dict[str, Any] = {"a": [{} for _ in range(80_000)]}
    grants = json.dumps({"login": "eve", "grants": [{"role": "x", "tenant": 1}] * 1_000}).encode()
    key = "tenant=acme&integration_type="
    return [
        Attack("bodies of 258 KB to POST /login", [build_request("POST", "/login", body=EMPTY_OBJECTS)], 2),
        Attack("bodies of 258 KB to POST /config", [build_request("POST", "/config", body=EMPTY_OBJECTS)], 2),
        Attack(
            "the same with a made-up token in the body",
            [build_request("POST", "/config", body=EMPTY_OBJECTS.replace(b"{", b'{"token":"cfd_x",', 1))],
        ),
        Attack("1,000 wrong grants to POST /user", [build_request("POST", "/user", body=grants)]),
        Attack("saves under ten required names", [save("names", {"a": empty, "x": number}) for number in range(8)]),
        Attack("saves under a hundred required names", [save("hundred", {"a": empty, "x": n}) for n in range(8)]),
        Attack("saves under 1,900 dependencies", [save("dependent", {"a": empty, "x": n}) for n in range(8)]),
        Attack("saves of 258 KB", [save("plain", {**large, "x": number}) for number in range(8)]),
        Attack("a viewer's reads under 90 patterns", view(f"/config?{key}patterns")),
        Attack("a viewer's reads of 258 KB", view(f"/config?{key}plain")),
        Attack("a viewer's exports", view("/configs/export")),
        Attack("a viewer's diffs", view(f"/config/diff?{key}plain&from=0&to=2")),
        Attack("a viewer's conforms=false", view("/configs?conforms=false")),
    ]


def attack_until_ended(port: int, attack: Attack) -> None:
    async def repeat(request: bytes) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
                while True:
                    writer.write(request)
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"content-length: ([0-9]+)", head)
                    await reader.readexactly(int(length[1]) if length else 0)
                    if b"connection: close" in head:
                        writer.close()
                        break
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.01)

    async def run() -> None:
        chosen = [attack.requests[number % len(attack.requests)] for number in range(attack.connections)]
        await asyncio.gather(*map(repeat, chosen))

    asyncio.run(run())


def measure_reads(port: int, token: str, *, seconds: float) -> Reads:
    url = f"http://127.0.0.1:{port}/config?tenant=victim&integration_type=small"
    command = ["wrk", "-t1", "-c8", f"-d{seconds}s", "--latency", "-H", f"Authorization: Bearer {token}", url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, p99 = _RATE.search(text), _P99.search(text)
    if rate is None or p99 is None:
        raise RuntimeError(text)
    return Reads(float(rate[1]), float(p99[1]) * _MILLISECONDS[p99[2]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4, help="duration of each load")
    parser.add_argument("--only", default="", help="measure attacks whose name contains this")
    chosen = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("Install wrk.")
    with tempfile.TemporaryDirectory(prefix="attacks.") as folder, run_service(Path(folder)) as port:
        setup = Setup(port)
        measure_reads(port, setup.reader, seconds=1)
        print("| attack | reads/s alone | during the attack | share | p99 alone, ms | during the attack, ms |")
        print("| --- | --- | --- | --- | --- | --- |")
        for attack in build_attacks(setup):
            if chosen.only not in attack.name:
                continue
            alone = measure_reads(port, setup.reader, seconds=chosen.seconds)
            attacker = multiprocessing.Process(target=attack_until_ended, args=(port, attack), daemon=True)
            attacker.start()
            time.sleep(0.5)
            during = measure_reads(port, setup.reader, seconds=chosen.seconds)
            attacker.terminate()
            attacker.join()
            print(
                f"| {attack.name} | {alone.rate:,.0f} | {during.rate:,.0f} | {during.rate / alone.rate:.0%}"
                f" | {alone.p99_milliseconds:.1f} | {during.p99_milliseconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
