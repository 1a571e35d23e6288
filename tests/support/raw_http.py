"""HTTP as bytes on a socket, for requests that no HTTP client sends."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

READ_SECONDS = 15.0


@dataclass(frozen=True)
class Reply:
    """One parsed response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for known, value in self.headers if known.lower() == name]
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


class KeepAliveConnection:
    """One connection to loopback that sends request after request. After an error, the next request reconnects."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        # A request was sent, and its response has not arrived.
        self.is_waiting = False

    async def send(self, data: bytes, *, max_seconds: float) -> Reply | None:
        """Send a request and wait for the response. None means no response."""
        try:
            async with asyncio.timeout(max_seconds):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._streams
                writer.write(data)
                self.is_waiting = True
                received = b""
                while not (replies := parse_replies(received)):
                    more = await reader.read(1 << 20)
                    if not more:
                        raise ConnectionError
                    received += more
                if replies[0].header("connection") == "close":
                    self.disconnect()
                return replies[0]
        except (OSError, TimeoutError):
            self.disconnect()
            return None
        finally:
            self.is_waiting = False

    def disconnect(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def exchange(
    port: int, data: bytes, *, half_close: bool = False, seconds: float = READ_SECONDS, until: int | None = None
) -> list[Reply]:
    """Send bytes and read until the server closes, `until` responses arrived, or the time is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()
    try:
        reading = asyncio.create_task(_read_into(reader, received, until))
        try:
            writer.write(data)
            await writer.drain()
            if half_close:
                writer.write_eof()
        except ConnectionError:
            pass  # the server answered and closed before it read everything
        await asyncio.wait({reading}, timeout=seconds)
        reading.cancel()
    finally:
        writer.close()
    return parse_replies(bytes(received))


async def _read_into(reader: asyncio.StreamReader, received: bytearray, until: int | None) -> None:
    try:
        while data := await reader.read(65_536):
            received += data
            if until is not None and len(parse_replies(bytes(received))) >= until:
                return
    except ConnectionError:
        return


def parse_replies(data: bytes) -> list[Reply]:
    found = []
    while data:
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not separator:
            break
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        status = int(first.split(" ")[1])
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        if len(rest) < length:
            break
        found.append(Reply(status, headers, rest[:length]))
        data = rest[length:]
    return found


def build_request(
    method: str, path: str, headers: list[tuple[str, str]], body: bytes | None = None, *, closes: bool = True
) -> bytes:
    """Build a request. Header values are encoded as UTF-8."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost"]
    lines += [f"{name}: {value}".encode() for name, value in headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    if closes:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")
