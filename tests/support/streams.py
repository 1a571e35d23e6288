"""A strict reader of server-sent events, which returns every block as received."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from support import raw_http


@dataclass(frozen=True)
class Block:
    """One block of a stream; a heartbeat has no event."""

    id: str | None
    event: str | None
    data: Any


class Stream:
    """One connection to `/watch`."""

    def __init__(
        self,
        port: int,
        token: str,
        params: Mapping[str, str] = MappingProxyType({}),
        *,
        last_id: str | None = None,
        is_slow: bool = False,
    ) -> None:
        self._is_slow = is_slow
        headers = [("Authorization", f"Bearer {token}"), ("Accept", "text/event-stream")]
        headers += [("Last-Event-ID", last_id)] if last_id is not None else []
        query = f"?{urlencode(params)}" if params else ""
        self._request = raw_http.build_request("GET", f"/watch{query}", headers, closes=False)
        self._port = port
        self.status = 0
        self.last_id = last_id
        self.head: list[str] = []

    async def __aenter__(self) -> Self:
        with socket.socket() as plain:
            if self._is_slow:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            plain.setblocking(False)
            await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", self._port))
            limit = 1 << 12 if self._is_slow else 1 << 20
            self._reader, self._writer = await asyncio.open_connection(sock=plain.dup(), limit=limit)
        try:
            self._writer.write(self._request)
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        except BaseException:  # the service ended before it answered
            self._writer.transport.abort()
            raise
        self.head = head.lower().split("\r\n")
        self.status = int(head.split(" ")[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.transport.abort()

    async def read_problem(self) -> Any:
        """Read the problem document of a failed request."""
        length = next(int(line.split(":")[1]) for line in self.head if line.startswith("content-length"))
        return json.loads(await self._reader.readexactly(length))

    async def read_blocks(self) -> AsyncIterator[Block]:
        """Yield blocks until the stream ends. Raises `ConnectionError` if the connection breaks."""
        text = b""
        while True:
            size = int((await self._read_line()).strip() or b"0", 16)
            part = await self._read_exactly(size + 2)
            if size == 0:
                return
            text += part[:-2]
            while b"\n\n" in text:
                one, _, text = text.partition(b"\n\n")
                block = _parse_block(one.decode())
                self.last_id = block.id or self.last_id
                yield block

    async def read_event(self, seconds: float = 60.0) -> Block:
        """Read the next block that has an event."""
        async with asyncio.timeout(seconds):
            async for block in self._blocks:
                if block.event is not None:
                    return block
        raise ConnectionError("the stream ended")

    @property
    def _blocks(self) -> AsyncIterator[Block]:
        if not hasattr(self, "_iterator"):
            self._iterator = self.read_blocks()
        return self._iterator

    async def _read_line(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionError from error

    async def _read_exactly(self, size: int) -> bytes:
        try:
            return await self._reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise ConnectionError from error


def _parse_block(text: str) -> Block:
    fields = dict(line.split(": ", 1) for line in text.split("\n") if not line.startswith(":"))
    data = fields.get("data")
    return Block(fields.get("id"), fields.get("event"), None if data is None else json.loads(data))
