"""A small TCP proxy that can be slowed, cut, stalled and healed; all of its connections or those that say a word."""

from __future__ import annotations

import asyncio
import contextlib


class Proxy:
    """Pass bytes on to a port, of loopback unless a host is given."""

    def __init__(self, target: int, *, host: str = "127.0.0.1", only: bytes | None = None) -> None:
        self._host, self._target = host, target
        # With a word, only connections that have sent it are stalled: the others go on.
        self._only = only
        # What is sent to the target waits so long each time.
        self.delay_seconds = 0.0
        self._is_cut = False
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._drop_all()

    def cut(self) -> None:
        """End all connections and accept none."""
        self._is_cut = True
        self._drop_all()

    def stall(self) -> None:
        """Leave connections open and pass nothing on."""
        self._goes_on.clear()

    def heal(self) -> None:
        """Pass on again; what had stalled is ended, as routers do."""
        if not self._goes_on.is_set():
            self._drop_all()
        self._is_cut = False
        self._goes_on.set()

    def _drop_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._is_cut:
                return
            to_reader, to_writer = await asyncio.open_connection(self._host, self._target)
            self._writers.add(to_writer)
            stalls = [self._only is None]
            await asyncio.gather(
                self._pass(reader, to_writer, stalls, is_there=True), self._pass(to_reader, writer, stalls)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for one in (writer, *([to_writer] if "to_writer" in locals() else [])):
                self._writers.discard(one)
                with contextlib.suppress(OSError, RuntimeError):
                    one.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stalls: list[bool], *, is_there: bool = False
    ) -> None:
        while data := await reader.read(65_536):
            if self._only is not None and self._only in data:
                stalls[0] = True
            if stalls[0]:
                await self._goes_on.wait()
            if is_there and self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            writer.write(data)
            await writer.drain()
        writer.transport.abort()
