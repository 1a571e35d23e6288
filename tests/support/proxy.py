"""A TCP proxy that delays, cuts or stalls its connections, or only those that send a given word."""

from __future__ import annotations

import asyncio
import contextlib


class Proxy:
    """Pass bytes on to a port, of loopback unless a host is given."""

    def __init__(self, target: int, *, host: str = "127.0.0.1", only: bytes | None = None) -> None:
        self._host, self._target = host, target
        # With a word, only connections that sent it stall.
        self.only = only
        # The delay of each packet to the target.
        self.delay_seconds = 0.0
        self._is_cut = False
        self._may_pass = asyncio.Event()
        self._may_pass.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        # Connections that clients opened.
        self.accepted = 0

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

    def redirect(self, target: int) -> None:
        """End all connections and lead new ones to another port, as a service name does after a change."""
        self._target = target
        self._drop_all()

    def redirect_new(self, target: int) -> None:
        """Lead new connections to another port, and leave open ones as they are."""
        self._target = target

    def stall(self) -> None:
        """Keep connections open and forward nothing."""
        self._may_pass.clear()

    def release_new(self) -> None:
        """Forward new connections. Those that stall stay silent, as they do if their packets were lost."""
        self._may_pass = asyncio.Event()
        self._may_pass.set()

    def heal(self) -> None:
        """Forward again. Stalled connections end, as they do behind a router."""
        if not self._may_pass.is_set():
            self._drop_all()
        self._is_cut = False
        self._may_pass.set()

    def _drop_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.accepted += 1
        may_pass = self._may_pass
        try:
            if self._is_cut:
                return
            to_reader, to_writer = await asyncio.open_connection(self._host, self._target)
            self._writers.add(to_writer)
            stalls = [self.only is None]
            await asyncio.gather(
                self._pass(reader, to_writer, stalls, may_pass, is_to_target=True),
                self._pass(to_reader, writer, stalls, may_pass),
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
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        stalls: list[bool],
        may_pass: asyncio.Event,
        *,
        is_to_target: bool = False,
    ) -> None:
        while data := await reader.read(65_536):
            if self.only is not None and self.only in data:
                stalls[0] = True
            if stalls[0]:
                await may_pass.wait()
            if is_to_target and self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            writer.write(data)
            await writer.drain()
        writer.transport.abort()
