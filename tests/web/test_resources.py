"""The group `resource` of the catalogue: clients that waste connections or time do not stop the reads of others."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from dataclasses import dataclass, field

import pytest

from support.populated_server import PopulatedServer
from support.waiting import wait_until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class IdleConnections:
    """Open connections that send nothing."""

    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    def close(self) -> None:
        for writer in self.connections:
            writer.close()


class ReceivingProtocol(asyncio.Protocol):
    """Keeps the received data even after a reset, which asyncio's stream reader does not."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, _exc: Exception | None) -> None:
        self.is_closed.set()


async def require_fast_reads(site: PopulatedServer, *, times: int = 20) -> None:
    for _ in range(times):
        began = time.monotonic()
        assert (await site.read("tok_editor")).status == 200
        assert time.monotonic() - began < 2.0


async def send_slowly(
    site: PopulatedServer, head: bytes, *, connections: int, interval_seconds: float, seconds: float
) -> list[bytes]:
    """Open connections that send one byte at each interval, and return the data that each received."""
    opened: list[ReceivingProtocol] = []

    async def send() -> bytes:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(ReceivingProtocol, "127.0.0.1", site.port)
        transport.write(head)
        opened.append(protocol)
        while not protocol.is_closed.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(protocol.is_closed.wait(), interval_seconds)
            if not protocol.is_closed.is_set():
                transport.write(b"a")
        return bytes(protocol.data)

    waiting = asyncio.gather(*(send() for _ in range(connections)))
    await wait_until_async(lambda: len(opened) == connections, "all connections are open")
    await require_fast_reads(site)
    return await asyncio.wait_for(waiting, seconds)


async def test_slow_heads_are_rejected_while_other_clients_read(
    site: PopulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry res-slowloris, with a limit of 3 s instead of 10 s."""
    monkeypatch.setattr("confide.web.http_protocol.MAX_HEAD_SECONDS", 3.0)
    responses = await send_slowly(
        site, b"GET /config HTTP/1.1\r\nHost: t\r\nX-A: ", connections=500, interval_seconds=2, seconds=15
    )
    assert all(response == b"" or b" 408 " in response for response in responses)
    assert sum(b" 408 " in response for response in responses) > 400


async def test_slow_bodies_are_rejected_while_other_clients_read(
    site: PopulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry res-slow-body, with a limit of 3 s instead of 30 s."""
    monkeypatch.setattr("confide.web.request.MAX_BODY_SECONDS", 3.0)
    head = (
        f"POST /config HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {site.values['tok_editor']}\r\n"
        "Content-Type: application/json\r\nContent-Length: 200\r\n\r\n{"
    ).encode()
    responses = await send_slowly(site, head, connections=200, interval_seconds=1, seconds=15)
    # A client that continues to send gets a reset, and may lose the response.
    assert all(response == b"" or b" 408 " in response for response in responses)
    assert sum(b" 408 " in response for response in responses) > 100


async def test_two_thousand_idle_connections_do_not_stop_reads(site: PopulatedServer) -> None:
    """The entry res-idle-2000."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    idle = IdleConnections()
    try:
        for _ in range(2_000):
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            idle.connections.append(writer)
        await require_fast_reads(site)
    finally:
        idle.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("n", [64, 200])
async def test_concurrent_reads_are_all_answered(site: PopulatedServer, n: int) -> None:
    """The entries res-pool-deadlock and res-stampede: more reads than the pool has connections."""
    began = time.monotonic()
    replies = await asyncio.gather(*(site.read("tok_editor") for _ in range(n)))
    assert {reply.status for reply in replies} == {200}
    assert time.monotonic() - began < 5


async def test_a_tenant_that_floods_the_server_does_not_stop_the_reads_of_others(site: PopulatedServer) -> None:
    """The entry res-noisy-neighbour, with a bounded number of requests."""

    async def flood() -> None:
        for _ in range(100):
            assert (await site.read("tok_other", "globex")).status in {200, 429}

    flooding = asyncio.gather(*(flood() for _ in range(16)))
    await require_fast_reads(site)
    await flooding


async def test_a_request_that_is_rejected_before_its_body_closes_the_connection(site: PopulatedServer) -> None:
    # Otherwise the server would wait for the body without a time limit.
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"POST /config HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer bad\r\nContent-Length: 1000\r\n\r\n")
    response = await asyncio.wait_for(reader.read(), 5)
    assert b" 401 " in response
    assert b"connection: close" in response
    writer.close()
