"""The service works behind proxies as people configure them, and with the HTTP clients that people have."""

from __future__ import annotations

import asyncio
import json
import subprocess
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from support import raw_http
from support.app import PASSWORD
from support.ports import find_free_port
from support.processes import CLIENT_SECONDS, Service, run_service, start_process
from support.programs import require_program
from support.waiting import wait_until

ADDRESS = {"tenant": "acme", "integration_type": "crm"}
CLIENT_PROGRAM = Path(__file__).parents[1] / "support" / "UpgradingClient.java"
# nginx with its defaults: HTTP/1.0 to the service and buffered responses. Compression of every type changes tags and
# delays events.
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{service_port}; {more} }} }}
}}
"""
# The three health checks that people write: HTTP/1.0 without Host, HEAD, and HTTP/1.1 with Host.
HAPROXY = """
global
  log stdout format raw local0
defaults
  mode http
  log global
  timeout connect 5s
  timeout client 60s
  timeout server 60s
backend plain
  option httpchk GET /health/ready
  server confide 127.0.0.1:{service_port} check inter 200
backend head
  option httpchk HEAD /health/ready HTTP/1.1\\r\\nHost:\\ confide
  server confide 127.0.0.1:{service_port} check inter 200
backend named
  option httpchk
  http-check send meth GET uri /health/ready ver HTTP/1.1 hdr Host confide
  server confide 127.0.0.1:{service_port} check inter 200
frontend main
  bind 127.0.0.1:{port}
  stats enable
  stats uri /stats
  default_backend plain
"""


@dataclass
class Site:
    """A service and the token of its admin."""

    service: Service
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with run_service(tmp_path_factory.mktemp("proxies")) as service:
        yield Site(service, service.add_admin())


@contextmanager
def run_nginx(folder: Path, service: Service, *, more: str = "") -> Iterator[int]:
    """Run nginx before a service, with more directives if needed. Yield its port."""
    program, port = require_program("nginx", package="nginx-light"), find_free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, service_port=service.port, more=more))
    with run_proxy([program, "-c", str(config), "-e", str(folder / "error.log")], port):
        yield port


@contextmanager
def run_proxy(command: Sequence[str], port: int, *, path: str = "/health/live") -> Iterator[None]:
    """Run a proxy until the end of the block, and wait until it answers."""
    with start_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def is_ready() -> bool:
            assert process.poll() is None, "the proxy has ended"
            try:
                return httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=CLIENT_SECONDS).is_success
            except httpx2.HTTPError:
                return False

        wait_until(is_ready, "the proxy answers")
        yield


def test_a_tag_that_nginx_weakened_works_as_a_precondition(site: Site, tmp_path: Path) -> None:
    address = {**ADDRESS, "integration_type": "tags"}
    with (
        run_nginx(tmp_path, site.service) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=site.headers, timeout=CLIENT_SECONDS) as http,
    ):
        http.post("/config", json={**address, "configuration": {"text": "x" * 2_000}}).raise_for_status()
        read = http.get("/config", params=address)
        assert read.headers["content-encoding"] == "gzip"
        tag = read.headers["etag"]
        assert tag.startswith('W/"')
        assert http.get("/config", params=address, headers={"If-None-Match": tag}).status_code == 304
        document = {**address, "configuration": {"a": 1}}
        saved = http.post("/config", json=document, headers={"If-Match": tag})
        assert (saved.status_code, saved.json()["version"]) == (200, 2)
        again = http.post("/config", json=document, headers={"If-Match": tag})
        assert (again.status_code, again.json()["code"]) == (412, "version-conflict")


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_nginx_passes_each_event_on_at_once_also_compressed(site: Site, tmp_path: Path, encoding: str) -> None:
    with run_nginx(tmp_path, site.service) as port:
        async with open_stream(port, site, encoding=encoding) as events:
            assert await anext(events) == "ready"
            with site.service.client(site.token) as http:
                for number in range(3):
                    document = {**ADDRESS, "integration_type": encoding, "configuration": {"n": number}}
                    http.post("/config", json=document).raise_for_status()
                    # Long before a heartbeat, which would push out a delayed event.
                    assert await asyncio.wait_for(anext(events), 10) == "saved"


@asynccontextmanager
async def open_stream(port: int, site: Site, *, encoding: str) -> AsyncIterator[AsyncIterator[str]]:
    """Watch through a proxy. Yield the names of the events, as soon as their bytes arrive."""
    async with (
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=CLIENT_SECONDS) as http,
        http.stream("GET", "/watch", headers={**site.headers, "Accept-Encoding": encoding}) as reply,
    ):
        assert reply.status_code == 200
        assert reply.headers.get("content-encoding", "identity") == encoding
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress if encoding == "gzip" else bytes

        async def read_names() -> AsyncIterator[str]:
            text = b""
            async for data in reply.aiter_raw():
                text += unpack(data)
                *lines, text = text.split(b"\n")
                for line in lines:
                    if line.startswith(b"event: "):
                        yield line.removeprefix(b"event: ").decode()

        yield read_names()


def log_in(port: int, address: str, password: str, *, login: str = "root") -> int:
    """Log in from an address of this machine. Return the status."""
    transport = httpx2.HTTPTransport(local_address=address)
    with httpx2.Client(transport=transport, timeout=CLIENT_SECONDS) as client:
        return client.post(f"http://127.0.0.1:{port}/login", json={"login": login, "password": password}).status_code


def read_reasons(service: Service) -> list[str]:
    reasons: list[str] = httpx2.get(f"{service.url}/health/ready", timeout=CLIENT_SECONDS).json()["reasons"]
    return reasons


def test_failures_count_for_the_callers_of_a_named_proxy_and_not_for_an_unnamed_one(tmp_path: Path) -> None:
    forward = "proxy_set_header X-Forwarded-For $remote_addr;"
    named, unnamed = tmp_path / "named", tmp_path / "unnamed"
    with (
        run_service(named, "--trusted-proxies", "127.0.0.1") as service,
        run_nginx(named, service, more=forward) as port,
    ):
        headers = {"Authorization": f"Bearer {service.log.read_text().split('Bearer ')[1].split(chr(39))[0]}"}
        with service.client() as client:
            document = {"login": "root", "password": PASSWORD}
            client.post("/user", json=document, headers=headers).raise_for_status()
        assert [log_in(port, "127.0.0.2", "wrong password") for _ in range(6)] == [401] * 5 + [429]
        assert log_in(port, "127.0.0.3", PASSWORD) == 200
        assert "proxy-untrusted" not in read_reasons(service)
    with run_service(unnamed) as service, run_nginx(unnamed, service, more=forward) as port:
        service.add_admin()
        wrong = [log_in(port, "127.0.0.2", "wrong password", login=f"user{number}") for number in range(52)]
        assert wrong == [401] * 52
        assert log_in(port, "127.0.0.3", PASSWORD) == 200
        assert "proxy-untrusted" in read_reasons(service)
        assert "proxy_untrusted address=127.0.0.1" in service.log.read_text()


@pytest.mark.parametrize("more", ["", "proxy_http_version 1.1; proxy_set_header X-Real-IP $remote_addr;"])
def test_the_callers_of_a_proxy_on_this_machine_cannot_add_the_first_user(tmp_path: Path, more: str) -> None:
    document = {"login": "eve", "password": PASSWORD}
    with run_service(tmp_path) as service, run_nginx(tmp_path, service, more=more) as port:
        reply = httpx2.post(f"http://127.0.0.1:{port}/user", json=document, timeout=CLIENT_SECONDS)
        assert (reply.status_code, reply.json()["code"]) == (401, "no-token")


def test_every_usual_health_check_of_haproxy_succeeds(site: Site, tmp_path: Path) -> None:
    program, port = require_program("haproxy"), find_free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, service_port=site.service.port))
    with run_proxy([program, "-f", str(config), "-db"], port, path="/stats;csv"):

        def list_checks() -> dict[str, tuple[str, str]]:
            lines = httpx2.get(f"http://127.0.0.1:{port}/stats;csv", timeout=CLIENT_SECONDS).text.splitlines()
            names = lines[0].removeprefix("# ").split(",")
            rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:]]
            return {row["pxname"]: (row["check_status"], row["status"]) for row in rows if row["svname"] == "confide"}

        wait_until(lambda: all("L7" in status for status, _ in list_checks().values()), "each backend was checked")
        assert list_checks() == dict.fromkeys(("plain", "head", "named"), ("L7OK", "UP"))
        read = httpx2.get(f"http://127.0.0.1:{port}/health/ready", timeout=CLIENT_SECONDS)
        assert read.status_code == 200


def test_curl_with_an_offer_of_http_2_saves_and_reads(site: Site) -> None:
    curl = [require_program("curl"), "--silent", "--http2", "--max-time", str(CLIENT_SECONDS)]
    curl += ["--header", f"Authorization: Bearer {site.token}"]
    document = json.dumps({**ADDRESS, "integration_type": "curl", "configuration": {"text": "x" * 5_000}})
    options = ["--json", "@-", f"{site.service.url}/config", "--write-out", "\n%{http_code} %{http_version}"]
    done = subprocess.run([*curl, *options], input=document, capture_output=True, text=True, check=True)
    body, status = done.stdout.rsplit("\n", 1)
    assert status == "200 1.1", done.stdout
    assert json.loads(body)["version"] == 1


def test_the_http_client_of_java_saves_and_reads(site: Site) -> None:
    java = require_program("java", package="default-jdk-headless")
    command = [java, str(CLIENT_PROGRAM), site.service.url, site.token]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["200 HTTP_1_1", "200 HTTP_1_1", "200 HTTP_1_1"]
    with site.service.client(site.token) as http:
        read = http.get("/config", params={**ADDRESS, "integration_type": "java"}).json()
    assert read["configuration"] == {"number": 1}


async def test_a_probe_in_http_1_0_succeeds(site: Site) -> None:
    (reply,) = await raw_http.exchange(site.service.port, b"GET /health/ready HTTP/1.0\r\n\r\n")
    assert (reply.status, reply.header("connection")) == (200, "close")
