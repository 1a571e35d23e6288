"""A client that reads no events is disconnected, needs little memory, and loses nothing when it resumes.

It covers the case `watch-slow-reader` of `bad_inputs.yaml`.
"""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from typing import Any

import pytest

from confide.database.engine import Many, Transaction
from support.app import RunningApp
from support.http_server import serve_app
from support.streams import Stream

EVENTS = 20_000
# Long, so that the buffers of the operating system cannot take all events.
TYPE = "flood" * 25


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def insert_deletions(first: int, last: int) -> Transaction[None]:
    yield Many(
        """INSERT INTO changes (kind, tenant, integration_type, version, saved_by, saved_at)
           VALUES ('retired', 'acme', $1, $2, 1, 1)""",
        [(TYPE, version) for version in range(first, last + 1)],
    )


async def test_a_client_that_reads_no_events_is_disconnected_and_resumes_without_loss(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confide.changes.routes.MAX_SEND_SECONDS", 1.0)
    token = await app.create_token("vi", ("viewer", "acme", "*"))
    engine: Any = app.process.stores.database._host_engine
    hub = app.process.changes.hub
    received: list[int] = []
    async with serve_app(app) as port:
        async with Stream(port, token, {"tenant": "acme"}, is_slow=True) as stream:
            blocks = stream.read_blocks()
            assert (await anext(blocks)).event == "ready"
            before = memory_bytes()
            for begin in range(1, EVENTS + 1, 2_000):
                await engine.transact_long(insert_deletions(begin, begin + 1_999))
                await asyncio.sleep(0.1)
            for _ in range(300):
                if not len(hub):
                    break
                await asyncio.sleep(0.02)
            assert len(hub) == 0, "disconnected after it took no data for a second"
            assert memory_bytes() - before < 16 * 2**20
            last_id = stream.last_id
            try:
                async for block in blocks:  # the events that were sent before
                    if block.event == "retired":
                        received.append(block.data["version"])
                        last_id = block.id
            except ConnectionError:
                pass
            assert len(received) < EVENTS
        async with Stream(port, token, {"tenant": "acme"}, last_id=last_id) as stream:
            await stream.read_event()
            while len(received) < EVENTS:
                received.append((await stream.read_event()).data["version"])
    assert received == list(range(1, EVENTS + 1))
