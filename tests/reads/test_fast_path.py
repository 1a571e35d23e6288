"""The plain read in both frames, as bytes on a socket: the protocol class and the ASGI application on any server."""

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
from support import wire
from support.app import TYPE, RunningApp, settings_for, start_app
from support.served import served
from support.wire import Reply

FRAMES = {"protocol": ReadingProtocol, "asgi": GuardedProtocol}
PATH = f"/config?tenant=acme&integration_type={TYPE}"


@dataclass
class Room:
    """A served app with one config, and a reader's token."""

    app: RunningApp
    port: int
    token: str
    editor: str

    def head(self, *headers: tuple[str, str], path: str = PATH, closes: bool = False) -> bytes:
        return wire.request("GET", path, [("Authorization", f"Bearer {self.token}"), *headers], closes=closes)

    async def ask(self, *headers: tuple[str, str], path: str = PATH) -> Reply:
        (reply,) = await self.send(self.head(*headers, path=path), until=1)
        return reply

    async def send(self, data: bytes, *, seconds: float = 2, **more: Any) -> list[Reply]:
        return await wire.exchange(self.port, data, seconds=seconds, **more)

    def hits(self) -> int:
        return self.app.process.reads.reader.take_counts().hits


@asynccontextmanager
async def room_at(tmp_path: Path, frame: str, **more: Any) -> AsyncIterator[Room]:
    async with (
        start_app(settings_for(tmp_path / "data", None)) as app,
        served(app, http=FRAMES[frame], **more) as port,
    ):
        token = await app.token("reader", ("reader", "acme", "*"))
        editor = await app.token("editor", ("editor", "*", "*"))
        await app.save(editor, {"number": 1, "password": "cfd-not-a-canary"})
        room = Room(app, port, token, editor)
        await room.ask()  # the first one is answered from the store, the others from memory
        room.hits()
        yield room


@pytest.fixture(params=FRAMES)
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    async with room_at(tmp_path, request.param) as built:
        yield built


async def test_a_read_from_memory_is_the_answer_that_the_store_gives_but_for_the_request_id(room: Room) -> None:
    from_store = await room.ask(("Cache-Control", "no-cache"))
    assert room.hits() == 0
    from_memory = await room.ask()
    assert room.hits() == 1
    assert from_memory.status == from_store.status == 200
    assert from_memory.body == from_store.body
    assert from_memory.header("request-id") is None
    assert from_store.header("request-id")
    kept = [pair for pair in from_store.headers if pair[0] not in ("request-id", "date")]
    assert sorted(pair for pair in from_memory.headers if pair[0] != "date") == sorted(kept)
    assert from_memory.header("date")


async def test_who_has_it_already_is_told_so_from_memory(room: Room) -> None:
    reply = await room.ask(("If-None-Match", '"7", "1"'))
    assert (reply.status, reply.body, reply.header("etag")) == (304, b"", '"1"')
    assert room.app.process.reads.reader.take_counts().not_modified == 1
    await room.app.save(room.editor, {"number": 2})
    assert (await room.ask(("If-None-Match", '"1"'))).status == 200


async def test_a_version_that_the_caller_knows_is_read_through_to(room: Room) -> None:
    assert (await room.ask(("Config-Min-Version", "1"))).header("config-version") == "1"
    assert room.hits() == 1
    # The store holds no more than it holds; memory is not believed about it.
    assert (await room.ask(("Config-Min-Version", "2"))).header("config-version") == "1"
    assert room.hits() == 0
    for wrong in ("0", "-1", "x", "1.0", ""):
        assert (await room.ask(("Config-Min-Version", wrong))).status == 400
    assert (await room.ask(("Cache-Control", "max-age=0, foo"))).status == 200
    assert room.hits() == 0


async def test_a_head_that_was_seen_before_is_decided_anew_each_time(room: Room) -> None:
    for _ in range(3):
        assert (await room.ask()).status == 200
    assert room.hits() == 3
    await room.app.process.identity.users.change(
        "reader", principal=await room.app.principal("root", ("admin", "*", "*")), grants=()
    )
    assert (await room.ask()).status == 404
    assert room.hits() == 0


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
async def test_what_is_not_plain_is_answered_as_ever(room: Room, lines: list[tuple[str, str]], status: int) -> None:
    assert [reply.status for reply in await room.send(room.head(*lines), until=1)] == [status]


async def test_names_that_are_none_and_parameters_that_are_not_ours_are_refused_as_ever(room: Room) -> None:
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
        assert (await room.ask(path=path)).status == status, path


async def test_no_host_and_two_hosts_are_refused(room: Room) -> None:
    bare = f"GET {PATH} HTTP/1.1\r\nAuthorization: Bearer {room.token}\r\n\r\n".encode()
    two = room.head(("Host", "b"))
    assert [reply.status for reply in await room.send(bare, until=1)] == [400]
    assert [reply.status for reply in await room.send(two, until=1)] == [400]


async def test_pipelined_requests_are_answered_in_their_order(room: Room) -> None:
    missing = "/config?tenant=acme&integration_type=nothing"
    save = json.dumps({"tenant": "acme", "integration_type": TYPE, "configuration": {"number": 5}}).encode()
    post = wire.request(
        "POST",
        "/config",
        [("Authorization", f"Bearer {room.editor}"), ("Content-Type", "application/json")],
        save,
        closes=False,
    )
    data = room.head() + room.head(path=missing) + room.head(("Cache-Control", "no-cache")) + post + room.head() * 2
    replies = await room.send(data, until=6)
    assert [reply.status for reply in replies] == [200, 404, 200, 200, 200, 200]
    assert replies[4].json()["configuration"]["number"] == 5


async def test_requests_that_come_while_one_is_read_from_the_store_wait_for_it(room: Room) -> None:
    slow = room.head(("Cache-Control", "no-cache"))
    reader, writer = await asyncio.open_connection("127.0.0.1", room.port)
    read = room.app.process.stores.configs.read_with_key

    async def slowly(key: Any) -> Any:
        await asyncio.sleep(0.1)
        return await read(key)

    room.app.process.stores.configs.read_with_key = slowly  # type: ignore[method-assign]
    writer.write(slow)
    await asyncio.sleep(0.02)
    writer.write(room.head(("If-None-Match", '"1"')))
    await asyncio.sleep(0.02)
    writer.write(room.head(path="/config?tenant=acme&integration_type=nothing"))
    data = b""
    while len(wire.replies(data)) < 3:
        data += await reader.read(65_536)
    room.app.process.stores.configs.read_with_key = read  # type: ignore[method-assign]
    writer.close()
    assert [reply.status for reply in wire.replies(data)] == [200, 304, 404]


async def test_http_1_0_gets_its_answer_and_its_connection_ends(room: Room) -> None:
    data = f"GET {PATH} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {room.token}\r\n\r\n".encode()
    began = time.monotonic()
    replies = await room.send(data, seconds=5)
    assert [reply.status for reply in replies] == [200]
    assert time.monotonic() - began < 3


async def test_connection_close_ends_it_and_keep_alive_does_not(room: Room) -> None:
    began = time.monotonic()
    assert [reply.status for reply in await room.send(room.head(closes=True), seconds=5)] == [200]
    assert time.monotonic() - began < 3
    reader, writer = await asyncio.open_connection("127.0.0.1", room.port)
    for _ in range(3):
        writer.write(room.head(("Connection", "keep-alive")))
        assert wire.replies(await reader.read(65_536))[0].status == 200
    writer.close()


async def test_a_header_line_without_a_colon_is_no_header(room: Room) -> None:
    for line in ("Host\r\nAuthorization", "foo\r\nHost: x\r\nAuthorization"):
        data = f"GET {PATH} HTTP/1.1\r\n{line}: Bearer {room.token}\r\n\r\n".encode()
        assert [reply.status for reply in await room.send(data, until=1)] == [400], line


async def test_line_ends_between_two_requests_leave_no_connection_open_for_ever(tmp_path: Path) -> None:
    async with room_at(tmp_path, "protocol", keep_alive=1) as room:
        reader, writer = await asyncio.open_connection("127.0.0.1", room.port)
        writer.write(room.head(path="/nothing"))
        assert wire.replies(await reader.read(65_536))[0].status == 404
        writer.write(b"\r\n")
        assert await asyncio.wait_for(reader.read(65_536), 10) == b""
        writer.close()


async def test_a_request_that_comes_in_pieces_is_one_request(room: Room) -> None:
    head = room.head()
    for cut in (3, 15, 40, len(head) - 3, len(head) - 1):
        reader, writer = await asyncio.open_connection("127.0.0.1", room.port)
        writer.write(head[:cut])
        await asyncio.sleep(0.02)
        writer.write(head[cut:])
        assert wire.replies(await asyncio.wait_for(reader.read(65_536), 10))[0].status == 200
        writer.write(head)
        assert wire.replies(await asyncio.wait_for(reader.read(65_536), 10))[0].status == 200
        writer.close()


async def test_one_who_does_not_read_does_not_fill_the_memory(room: Room) -> None:
    await room.app.save(room.editor, {"large": ["x" * 60_000] * 3})
    _, writer = await asyncio.open_connection("127.0.0.1", room.port, limit=1_000)
    transport: Any = writer.transport
    transport.pause_reading()
    head = room.head()
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
    # 400 answers are 72 MB: what is not read is not made.
    assert room.hits() < 200
    assert (await room.ask()).status == 200
    writer.transport.abort()


async def test_an_idle_connection_is_closed_in_time_and_one_that_is_used_is_not(tmp_path: Path) -> None:
    for frame in FRAMES:
        async with room_at(tmp_path / frame, frame, keep_alive=2) as room:
            reader, writer = await asyncio.open_connection("127.0.0.1", room.port)
            for _ in range(4):
                writer.write(room.head())
                assert wire.replies(await asyncio.wait_for(reader.read(65_536), 5))[0].status == 200
                await asyncio.sleep(0.6)
            assert await asyncio.wait_for(reader.read(65_536), 10) == b""
            writer.close()


async def test_a_read_under_way_is_answered_when_the_server_ends(tmp_path: Path) -> None:
    for frame, http in FRAMES.items():
        async with start_app(settings_for(tmp_path / frame, None)) as app:
            token = await app.token("editor", ("editor", "*", "*"))
            await app.save(token, {"number": 1})
            read = app.process.stores.configs.read_with_key

            async def slowly(key: Any, read: Any = read) -> Any:
                await asyncio.sleep(0.3)
                return await read(key)

            async with served(app, http=http) as port:
                app.process.stores.configs.read_with_key = slowly  # type: ignore[method-assign]
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                headers = [("Authorization", f"Bearer {token}"), ("Cache-Control", "no-cache")]
                writer.write(wire.request("GET", PATH, headers, closes=False))
                await asyncio.sleep(0.1)
            (reply,) = wire.replies(await asyncio.wait_for(reader.read(65_536), 10))
            assert reply.status == 200
            assert reply.header("connection") == "close"
            assert await reader.read(100) == b""
            writer.close()


async def test_a_bug_is_told_as_one(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(room.app.process.reads.reader, "read_cached", fails)
    reply = await room.ask()
    assert (reply.status, reply.json()["code"]) == (500, "internal-error")
    assert b"secret" not in reply.body


async def test_reads_are_counted_by_token_and_key(room: Room) -> None:
    for _ in range(3):
        await room.ask()
    await room.ask(("If-None-Match", '"1"'))
    taken = room.app.process.reads.reader.take_counts()
    assert (taken.hits, taken.not_modified) == (4, 1)
    assert list(taken.reads.values()) == [4]
    assert [key for _, key in taken.reads] == [("acme", TYPE)]
    assert room.app.process.reads.reader.take_counts().reads == {}
