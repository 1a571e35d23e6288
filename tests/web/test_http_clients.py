"""The service answers HTTP clients as they are: offered upgrades, HEAD, HTTP/1.0 probes and content types."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import httpx2
import pytest

from confide.server.api import ROUTES
from confide.server.health import Health, HealthShape
from confide.telemetry.request_log import RequestLogLine
from confide.web.http_protocol import GuardedProtocol
from support import raw_http
from support.app import TYPE, RunningApp
from support.http_server import serve_app
from support.raw_http import Reply
from support.route_requests import RouteClient

H2C = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAEAAEAAAAIAAAAB")]
BODY = json.dumps({"tenant": "acme", "integration_type": TYPE, "configuration": {"a": 1}}).encode()


@dataclass
class Server:
    """A served app and the token of an admin."""

    app: RunningApp
    port: int
    token: str

    def build_save(self, *headers: tuple[str, str], body: bytes = BODY, closes: bool = False) -> bytes:
        known = [("Authorization", f"Bearer {self.token}"), ("Content-Type", "application/json")]
        return raw_http.build_request("POST", "/config", [*known, *headers], body, closes=closes)

    def build_read(self, *headers: tuple[str, str]) -> bytes:
        path = f"/config?tenant=acme&integration_type={TYPE}"
        known = [("Authorization", f"Bearer {self.token}")]
        return raw_http.build_request("GET", path, [*known, *headers], closes=True)


@pytest.fixture
async def server(sqlite_app: RunningApp) -> AsyncIterator[Server]:
    token = await sqlite_app.create_token("admin", ("admin", "*", "*"))
    async with serve_app(sqlite_app) as port:
        yield Server(sqlite_app, port, token)


async def exchange_parts(port: int, parts: Sequence[bytes]) -> list[Reply]:
    """Send parts, each in a packet of its own. Read until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.005)  # the next part arrives later, which is what the test varies
    replies = raw_http.parse_replies(await asyncio.wait_for(reader.read(), raw_http.READ_SECONDS))
    writer.close()
    return replies


@pytest.mark.parametrize("cut", ["whole", "before the body", "within the body", "within the head", "in single bytes"])
async def test_an_offered_upgrade_is_ignored_and_the_body_is_read(server: Server, cut: str) -> None:
    data = server.build_save(*H2C) + server.build_read(*H2C)
    body_at = data.index(b"\r\n\r\n") + 4
    places = {"whole": (), "before the body": (body_at,), "within the body": (body_at + 9,), "within the head": (40,)}
    ends = [*places.get(cut, range(1, len(data))), len(data)]
    parts = [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    saved, read = await exchange_parts(server.port, parts)
    assert (saved.status, saved.json()["version"]) == (200, 1), saved.body
    assert (read.status, read.json()["configuration"]) == (200, {"a": 1}), read.body


async def test_an_offered_upgrade_with_a_chunked_body_is_ignored(server: Server) -> None:
    head = server.build_save(*H2C, ("Transfer-Encoding", "chunked")).removesuffix(BODY)
    head = head.replace(b"Content-Length: %d\r\n" % len(BODY), b"")
    data = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) + server.build_read()
    saved, read = await exchange_parts(server.port, [data])
    assert (saved.status, read.status) == (200, 200), saved.body
    assert read.json()["configuration"] == {"a": 1}


async def test_the_body_of_an_offered_upgrade_cannot_hide_a_request(server: Server) -> None:
    """A body that looks like a request is a body."""
    hidden = raw_http.build_request("DELETE", "/config", [], closes=False)
    replies = await exchange_parts(server.port, [server.build_save(*H2C, body=hidden) + server.build_read()])
    assert [(reply.status, reply.json()["code"]) for reply in replies] == [(400, "json-invalid"), (404, "not-found")]


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: 0x2",
    ],
)
async def test_an_offered_upgrade_does_not_relax_the_framing(server: Server, framing: str) -> None:
    upgrade = "".join(f"{name}: {value}\r\n" for name, value in H2C)
    data = f"POST /config HTTP/1.1\r\nHost: t\r\n{upgrade}{framing}\r\n\r\n{{}}".encode()
    (reply,) = await exchange_parts(server.port, [data])
    assert (reply.status, reply.json()["code"]) == (400, "malformed-request")


async def test_the_head_with_an_offered_upgrade_is_limited_in_size(server: Server) -> None:
    large = [(f"X-{number}", "x" * 1_000) for number in range(40)]
    (reply,) = await exchange_parts(server.port, [server.build_save(*H2C, *large)])
    assert reply.status == 431


async def test_an_offered_upgrade_is_ignored_without_the_fast_path(sqlite_app: RunningApp) -> None:
    token = await sqlite_app.create_token("admin", ("admin", "*", "*"))
    async with serve_app(sqlite_app, http=GuardedProtocol) as port:
        server = Server(sqlite_app, port, token)
        (reply,) = await exchange_parts(port, [server.build_save(*H2C, closes=True)])
    assert reply.status == 200, reply.body


GET_ROUTES = [route for route in ROUTES if route.method == "GET"]
# They differ for each request, and a server need not send them to HEAD (RFC 9110, section 9.3.2).
PER_REQUEST = {"date", "request-id", "transfer-encoding"}


async def test_head_gets_the_headers_of_every_get_route_without_content(server: Server) -> None:
    client = RouteClient(server.app)
    await client.reset()
    assert len(GET_ROUTES) > 20
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
        server.app.http = http
        for route in GET_ROUTES:
            path = route.path.replace("/assets/{name}", "/assets/docs.js")
            got = await client.request_route(("GET", path), "admin", "own")
            assert got.status_code == 200, got.text
            # The next response on the connection would begin with any content.
            head = await http.send(http.build_request("HEAD", got.request.url, headers=got.request.headers))
            assert (head.status_code, head.content) == (200, b""), route.path
            names = PER_REQUEST | ({"content-length"} if route.path == "/metrics" else set())
            assert select_headers(head, without=names) == select_headers(got, without=names), route.path


def select_headers(response: httpx2.Response, *, without: set[str]) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in without}


@pytest.mark.parametrize(
    "path", ["/watch?tenant=acme", "/audit/verify", f"/integration-types/{TYPE}/conformance"], ids=lambda path: path
)
async def test_head_of_a_stream_gets_its_headers_and_ends(server: Server, path: str) -> None:
    await server.app.request("PUT", f"/integration-types/{TYPE}", token=server.token, json={"schema": {}})
    headers = [("Authorization", f"Bearer {server.token}"), ("Accept", "text/event-stream")]
    data = raw_http.build_request("HEAD", path, headers, closes=False)
    data += raw_http.build_request("GET", "/health/live", [])
    head, live = await exchange_parts(server.port, [data])
    assert (head.status, head.header("content-type"), head.body) == (200, "text/event-stream", b"")
    assert live.json()["status"] == "ok"
    assert not server.app.process.changes.hub._watchers


async def test_the_log_gets_a_probe_only_if_its_status_changed(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    states = iter(("ok", "ok", "degraded", "unavailable", "unavailable", "ok", "ok"))

    async def check(_health: Health) -> HealthShape:
        return HealthShape.model_validate({"status": next(states), "reasons": []})

    monkeypatch.setattr(Health, "check", check)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
        with caplog.at_level(logging.INFO, "confide.requests"):
            for method in ("GET", "HEAD", "GET", "GET", "HEAD", "GET", "HEAD"):
                await http.request(method, "/health/ready")
            await http.get("/health/ready?x=1")
    lines = [line for record in caplog.records if isinstance(line := record.msg, RequestLogLine)]
    assert [(line["path"], line["status"]) for line in lines] == [
        ("/health/ready", 200),
        ("/health/ready", 503),
        ("/health/ready", 200),
        ("/health/ready", 400),
    ]


async def test_head_reports_errors_without_content_and_other_paths_do_not_allow_it(server: Server) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
        missing = await http.head(f"/config?tenant=acme&integration_type={TYPE}")
        login = await http.head("/login?login=root&password=x")
        wrong = await http.put("/health/live")
    assert (missing.status_code, missing.content) == (401, b"")
    assert int(missing.headers["content-length"]) > 0
    assert (login.status_code, login.headers["allow"]) == (405, "POST")
    assert wrong.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_probe_in_http_1_0_needs_no_host(server: Server, path: str, method: str) -> None:
    data = await read_all(server.port, f"{method} {path} HTTP/1.0\r\n\r\n".encode())
    assert data.startswith(b"HTTP/1.1 200 ")
    assert (b'"reasons":[' in data) == (method == "GET")
    assert b"connection: close\r\n" in data


@pytest.mark.parametrize(
    "request_line", ["GET /health/ready HTTP/1.1", "GET /health/ready HTTP/1.1\r\nHost: a\r\nHost: b"]
)
async def test_other_requests_have_exactly_one_host(server: Server, request_line: str) -> None:
    (reply,) = await exchange_parts(server.port, [f"{request_line}\r\nConnection: close\r\n\r\n".encode()])
    assert (reply.status, reply.json()["code"]) == (400, "malformed-request")
    data = await read_all(server.port, b"GET /health/ready HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 400 ")


async def read_all(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    received = await asyncio.wait_for(reader.read(), raw_http.READ_SECONDS)
    writer.close()
    return received


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json;charset=utf8", 200),
        ("application/json; charset=UTF8", 200),
        ('application/json; charset="utf-8"', 200),
        ("application/json;", 200),
        ("application/json; charset=utf-8;", 200),
        ("application/json ; ; charset = utf-8 ; ", 200),
        ("APPLICATION/MERGE-PATCH+JSON;", 200),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=utf8x", 415),
        ('application/json; charset="utf-8', 415),
        ("application/json, text/plain", 415),
        ("application/json charset=utf-8", 415),
        ("application/jsonx;", 415),
        ("text/plain;", 415),
    ],
)
async def test_a_content_type_can_have_an_empty_parameter_and_any_label_of_utf_8(
    server: Server, content_type: str, status: int
) -> None:
    headers = {"Content-Type": content_type}
    reply = await server.app.request("POST", "/config", token=server.token, headers=headers, content=BODY)
    assert reply.status_code == status, reply.text
