"""A stub HTTP server, and a closed-loop client that sends one request after another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def run_stub_server(before: Callable[[], Awaitable[bytes | None]]) -> AsyncIterator[int]:
    """Serve on a loopback port and send what `before` returns; None closes the connection. Yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
                )
                await reader.readexactly(length)
                answer = await before()
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1_024)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        server.close_clients() if hasattr(server, "close_clients") else None


async def run_closed_loop(port: int, *, seconds: float, pause: float) -> list[float]:
    """Send, wait for the response, pause and repeat, as most load tools do. Return the latencies in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(len(ANSWER))
        took.append(time.monotonic() - began)
        await asyncio.sleep(pause)
    writer.close()
    return took
