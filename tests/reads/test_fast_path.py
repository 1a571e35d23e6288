"""Plain reads over a socket give the same responses on the fast path and through the ASGI application."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from confide.reads.fast_path import ReadingProtocol
from confide.web.http_protocol import GuardedProtocol
from support import raw_http
from support.app import TYPE, RunningApp, build_settings, start_app
from support.http_server import serve_app
from support.raw_http import Reply

PROTOCOLS = {"protocol": ReadingProtocol, "asgi": GuardedProtocol}
PATH = f"/config?tenant=acme&integration_type={TYPE}"


@dataclass
class Site:
    """A served app with one config, the token of a reader and the token of an editor."""

    app: RunningApp
    port: int
    token: str
    editor: str

    def head(self, *headers: tuple[str, str], path: str = PATH, closes: bool = False) -> bytes:
        return raw_http.build_request("GET", path, [("Authorization", f"Bearer {self.token}"), *headers], closes=closes)

    async def get(self, *headers: tuple[str, str], path: str = PATH) -> Reply:
        (reply,) = await self.send(self.head(*headers, path=path), until=1)
        return reply

    async def send(self, data: bytes, *, seconds: float = 2, **more: Any) -> list[Reply]:
        return await raw_http.exchange(self.port, data, seconds=seconds, **more)

    def hits(self) -> int:
        return self.app.process.reads.reader.take_counts().hits


@asynccontextmanager
async def open_site(tmp_path: Path, protocol: str, **more: Any) -> AsyncIterator[Site]:
    async with (
        start_app(build_settings(tmp_path / "data", None)) as app,
        serve_app(app, http=PROTOCOLS[protocol], **more) as port,
    ):
        token = await app.create_token("reader", ("reader", "acme", "*"))
        editor = await app.create_token("editor", ("editor", "*", "*"))
        await app.save(editor, {"number": 1, "password": "cfd-not-a-canary"})
        site = Site(app, port, token, editor)
        await site.get()  # from the database; later reads come from the cache
        site.hits()
        yield site


@pytest.fixture(params=PROTOCOLS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path, request.param) as built:
        yield built


async def test_a_cached_read_has_the_response_of_a_database_read_except_for_the_request_id(site: Site) -> None:
    from_database = await site.get(("Cache-Control", "no-cache"))
    assert site.hits() == 0
    from_cache = await site.get()
    assert site.hits() == 1
    assert from_cache.status == from_database.status == 200
    assert from_cache.body == from_database.body
    assert from_cache.header("request-id") is None
    assert from_database.header("request-id")
    expected = [pair for pair in from_database.headers if pair[0] not in ("request-id", "date")]
    assert sorted(pair for pair in from_cache.headers if pair[0] != "date") == sorted(expected)
    assert from_cache.header("date")


async def test_a_client_with_the_current_version_gets_304_from_the_cache(site: Site) -> None:
    reply = await site.get(("If-None-Match", '"7", "1"'))
    assert (reply.status, reply.body, reply.header("etag")) == (304, b"", '"1"')
    assert site.app.process.reads.reader.take_counts().not_modified == 1
    await site.app.save(site.editor, {"number": 2})
    assert (await site.get(("If-None-Match", '"1"'))).status == 200


async def test_a_minimum_version_above_the_cached_one_is_read_from_the_database(site: Site) -> None:
    assert (await site.get(("Config-Min-Version", "1"))).header("config-version") == "1"
    assert site.hits() == 1
    # The database has no newer version, but the cache alone cannot know that.
    assert (await site.get(("Config-Min-Version", "2"))).header("config-version") == "1"
    assert site.hits() == 0
    for wrong in ("0", "-1", "x", "1.0", ""):
        assert (await site.get(("Config-Min-Version", wrong))).status == 400
    assert (await site.get(("Cache-Control", "max-age=0, foo"))).status == 200
    assert site.hits() == 0


async def test_a_repeated_head_is_authorized_each_time(site: Site) -> None:
    for _ in range(3):
        assert (await site.get()).status == 200
    assert site.hits() == 3
    await site.app.process.identity.users.change(
        "reader", principal=await site.app.load_principal("root", ("admin", "*", "*")), grants=()
    )
    assert (await site.get()).status == 404
    assert site.hits() == 0


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([("Authorization", "Bearer x")], 400),
        ([("Host", "other")], 400),
        ([("X-Long", "y" * 40_000)], 431),
        ([(f"X-{n}", "y") for n in range(120)], 431),
        ([("Content-Length", "2")], 400),
        ([("If-Match", '"2"')], 412),
        ([("If-None-Match", "nonsense")], 400),
        ([("Connection", "close")], 200),
        ([("Connection", "Upgrade"), ("Upgrade", "websocket")], 200),
        ([("Expect", "100-continue")], 200),
        ([("Accept-Encoding", "gzip"), ("X-Forwarded-For", "127.0.0.7"), ("User-Agent", "a (b; c)")], 200),
    ],
)
async def test_a_read_that_is_not_plain_gets_the_response_of_the_router(
    site: Site, lines: list[tuple[str, str]], status: int
) -> None:
    assert [reply.status for reply in await site.send(site.head(*lines), until=1)] == [status]


async def test_invalid_names_and_parameters_get_the_response_of_the_router(site: Site) -> None:
    for path, status in (
        ("/config?tenant=acme", 400),
        (PATH + "&tenant=acme", 400),
        (PATH + "&x=1", 400),
        (f"/config?tenant=a%20b&integration_type={TYPE}", 422),
        (f"/config?tenant=ac%6De&integration_type={TYPE}", 200),
        (f"/config?integration_type={TYPE}&tenant=acme", 200),
        ("/config?tenant=acme&integration_type=nothing", 404),
        (f"/config?tenant=globex&integration_type={TYPE}", 404),
        ("//config?tenant=acme&integration_type=" + TYPE, 404),
        ("/config?" + "t" * 9_000, 414),
    ):
        assert (await site.get(path=path)).status == status, path


async def test_a_missing_or_second_host_is_rejected(site: Site) -> None:
    without_host = f"GET {PATH} HTTP/1.1\r\nAuthorization: Bearer {site.token}\r\n\r\n".encode()
    with_two = site.head(("Host", "b"))
    assert [reply.status for reply in await site.send(without_host, until=1)] == [400]
    assert [reply.status for reply in await site.send(with_two, until=1)] == [400]


async def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    missing = "/config?tenant=acme&integration_type=nothing"
    save = json.dumps({"tenant": "acme", "integration_type": TYPE, "configuration": {"number": 5}}).encode()
    post = raw_http.build_request(
        "POST",
        "/config",
        [("Authorization", f"Bearer {site.editor}"), ("Content-Type", "application/json")],
        save,
        closes=False,
    )
    data = site.head() + site.head(path=missing) + site.head(("Cache-Control", "no-cache")) + post + site.head() * 2
    replies = await site.send(data, until=6)
    assert [reply.status for reply in replies] == [200, 404, 200, 200, 200, 200]
    assert replies[4].json()["configuration"]["number"] == 5


async def test_requests_during_a_read_from_the_database_are_answered_after_it(site: Site) -> None:
    slow = site.head(("Cache-Control", "no-cache"))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    read = site.app.process.stores.configs.read_with_data_key

    async def read_slowly(key: Any) -> Any:
        await asyncio.sleep(0.1)
        return await read(key)

    site.app.process.stores.configs.read_with_data_key = read_slowly  # type: ignore[method-assign]
    writer.write(slow)
    await asyncio.sleep(0.02)
    writer.write(site.head(("If-None-Match", '"1"')))
    await asyncio.sleep(0.02)
    writer.write(site.head(path="/config?tenant=acme&integration_type=nothing"))
    data = b""
    while len(raw_http.parse_replies(data)) < 3:
        data += await reader.read(65_536)
    site.app.process.stores.configs.read_with_data_key = read  # type: ignore[method-assign]
    writer.close()
    assert [reply.status for reply in raw_http.parse_replies(data)] == [200, 304, 404]


async def test_an_http_1_0_request_is_answered_and_its_connection_is_closed(site: Site) -> None:
    data = f"GET {PATH} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n\r\n".encode()
    began = time.monotonic()
    replies = await site.send(data, seconds=5)
    assert [reply.status for reply in replies] == [200]
    assert time.monotonic() - began < 3


async def test_connection_close_closes_the_connection_and_keep_alive_does_not(site: Site) -> None:
    began = time.monotonic()
    assert [reply.status for reply in await site.send(site.head(closes=True), seconds=5)] == [200]
    assert time.monotonic() - began < 3
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    for _ in range(3):
        writer.write(site.head(("Connection", "keep-alive")))
        assert raw_http.parse_replies(await reader.read(65_536))[0].status == 200
    writer.close()


async def test_a_header_line_without_a_colon_is_rejected(site: Site) -> None:
    for line in ("Host\r\nAuthorization", "foo\r\nHost: x\r\nAuthorization"):
        data = f"GET {PATH} HTTP/1.1\r\n{line}: Bearer {site.token}\r\n\r\n".encode()
        assert [reply.status for reply in await site.send(data, until=1)] == [400], line


async def test_empty_lines_between_requests_keep_no_idle_connection_open(tmp_path: Path) -> None:
    async with open_site(tmp_path, "protocol", keep_alive=1) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(site.head(path="/nothing"))
        assert raw_http.parse_replies(await reader.read(65_536))[0].status == 404
        writer.write(b"\r\n")
        assert await asyncio.wait_for(reader.read(65_536), 10) == b""
        writer.close()


async def test_a_request_that_arrives_in_pieces_is_answered(site: Site) -> None:
    head = site.head()
    for cut in (3, 15, 40, len(head) - 3, len(head) - 1):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(head[:cut])
        await asyncio.sleep(0.02)
        writer.write(head[cut:])
        assert raw_http.parse_replies(await asyncio.wait_for(reader.read(65_536), 10))[0].status == 200
        writer.write(head)
        assert raw_http.parse_replies(await asyncio.wait_for(reader.read(65_536), 10))[0].status == 200
        writer.close()


async def test_a_client_that_does_not_read_does_not_fill_the_memory(site: Site) -> None:
    await site.app.save(site.editor, {"large": ["x" * 60_000] * 3})
    _, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1_000)
    transport: Any = writer.transport
    transport.pause_reading()
    head = site.head()
    sent = 0
    while sent < 400:
        writer.write(head)
        try:
            await asyncio.wait_for(writer.drain(), 0.2)
        except TimeoutError:
            break
        sent += 1
        await asyncio.sleep(0)
    await asyncio.sleep(0.3)
    # 400 responses are 72 MB. The server stops when the client does not read.
    assert site.hits() < 200
    assert (await site.get()).status == 200
    writer.transport.abort()


async def test_only_an_idle_connection_is_closed_by_the_keep_alive_timeout(tmp_path: Path) -> None:
    for protocol in PROTOCOLS:
        async with open_site(tmp_path / protocol, protocol, keep_alive=2) as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            for _ in range(4):
                writer.write(site.head())
                assert raw_http.parse_replies(await asyncio.wait_for(reader.read(65_536), 5))[0].status == 200
                await asyncio.sleep(0.6)
            assert await asyncio.wait_for(reader.read(65_536), 10) == b""
            writer.close()


async def test_a_read_in_progress_is_answered_when_the_server_stops(tmp_path: Path) -> None:
    for protocol, http in PROTOCOLS.items():
        async with start_app(build_settings(tmp_path / protocol, None)) as app:
            token = await app.create_token("editor", ("editor", "*", "*"))
            await app.save(token, {"number": 1})
            read = app.process.stores.configs.read_with_data_key

            async def read_slowly(key: Any, read: Any = read) -> Any:
                await asyncio.sleep(0.3)
                return await read(key)

            async with serve_app(app, http=http) as port:
                app.process.stores.configs.read_with_data_key = read_slowly  # type: ignore[method-assign]
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                headers = [("Authorization", f"Bearer {token}"), ("Cache-Control", "no-cache")]
                writer.write(raw_http.build_request("GET", PATH, headers, closes=False))
                await asyncio.sleep(0.1)
            (reply,) = raw_http.parse_replies(await asyncio.wait_for(reader.read(65_536), 10))
            assert reply.status == 200
            assert reply.header("connection") == "close"
            assert await reader.read(100) == b""
            writer.close()


async def test_an_unexpected_error_is_an_internal_error_without_details(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(site.app.process.reads.reader, "read_cached", fail)
    reply = await site.get()
    assert (reply.status, reply.json()["code"]) == (500, "internal-error")
    assert b"secret" not in reply.body


async def test_reads_are_counted_by_token_and_key(site: Site) -> None:
    for _ in range(3):
        await site.get()
    await site.get(("If-None-Match", '"1"'))
    counts = site.app.process.reads.reader.take_counts()
    assert (counts.hits, counts.not_modified) == (4, 1)
    assert list(counts.reads.values()) == [4]
    assert [key for _, key in counts.reads] == [("acme", TYPE)]
    assert site.app.process.reads.reader.take_counts().reads == {}


async def test_a_head_without_its_end_is_never_answered_from_the_cache(site: Site) -> None:
    for _ in range(3):
        await site.get()
    lines = [line for line in site.head().split(b"\r\n") if line and not line.lower().startswith(b"content")]
    heads = site.app.process.caching.request_heads
    # The relevant lines of a cached head, joined in each way that the cache joins bytes before it hashes them.
    for separator in (b"\n", b"\r\n", b"\0"):
        for count in range(1, len(lines) + 1):
            assert heads.find(separator.join(lines[:count])) is None


async def test_parts_of_a_head_that_contain_nul_are_never_taken_for_other_parts(site: Site) -> None:
    query = PATH.partition("?")[2].encode()
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {site.token}".encode())]
    heads = site.app.process.caching.request_heads
    assert heads.find_parsed(query, headers) is not None
    parts = [part for header in headers for part in header]
    assert heads.find_parsed(b"\0".join([query, *parts]), []) is None
    assert heads.find_parsed(b"\0".join([query, *parts[:2]]), headers[1:]) is None
