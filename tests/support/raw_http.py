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
