"""Entry watch-slow-reader: who never reads is let go, costs little until then, and loses nothing on resuming."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from typing import Any

import pytest

from confide.database.engine import Many, Transaction
from support.app import RunningApp
from support.served import served
from support.streams import Stream

EVENTS = 20_000
# So long that the system does not take all that is told of it for somebody who reads nothing.
TYPE = "flood" * 25


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def saved(first: int, last: int) -> Transaction[None]:
    yield Many(
        "INSERT INTO changes (kind, tenant, integration_type, version, saved_by, saved_at)"
        " VALUES ('retired', 'acme', $1, $2, 1, 1)",
        [(TYPE, version) for version in range(first, last + 1)],
    )


async def test_a_reader_that_never_reads_is_let_go_and_resumes_without_loss(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confide.changes.routes.SLOW_SECONDS", 1.0)
    token = await app.token("vi", ("viewer", "acme", "*"))
    engine: Any = app.process.stores.database._host_engine
    watching = app.process.changes.hub
    heard: list[int] = []
    async with served(app) as port:
        async with Stream(port, token, {"tenant": "acme"}, is_slow=True) as stream:
            blocks = stream.blocks()
            assert (await anext(blocks)).event == "ready"
            before = memory_bytes()
            for begin in range(1, EVENTS + 1, 2_000):
                await engine.transact_long(saved(begin, begin + 1_999))
                await asyncio.sleep(0.1)
            for _ in range(300):
                if not len(watching):
                    break
                await asyncio.sleep(0.02)
            assert len(watching) == 0, "let go after a second in which it took nothing"
            assert memory_bytes() - before < 16 * 2**20
            last_id = stream.last_id
            try:
                async for block in blocks:  # what had been written to it until then
                    if block.event == "retired":
                        heard.append(block.data["version"])
                        last_id = block.id
            except ConnectionError:
                pass
            assert len(heard) < EVENTS
        async with Stream(port, token, {"tenant": "acme"}, last_id=last_id) as stream:
            await stream.next()
            while len(heard) < EVENTS:
                heard.append((await stream.next()).data["version"])
    assert heard == list(range(1, EVENTS + 1))
