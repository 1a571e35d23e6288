"""The application on the real HTTP server, in the event loop of the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from confide.reads.fast_path import ReadingProtocol
from confide.server.application import Application
from support.app import RunningApp


@asynccontextmanager
async def serve_app(app: RunningApp, *, http: Any = ReadingProtocol, keep_alive: int = 75) -> AsyncIterator[int]:
    """Serve an app on a free port of loopback with a protocol class. Yield the port."""
    config = uvicorn.Config(
        Application(lambda: app.process),
        host="127.0.0.1",
        port=0,
        http=http,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - the server has no event to wait for
        await asyncio.sleep(0.01)
    yield int(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    await running
