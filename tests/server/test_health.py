"""What health says while the store or its news are away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from confide.changes.sqlite_feed import SqliteChangeFeed
from confide.clock import boottime
from confide.errors import DatabaseUnavailable
from support.app import ADMIN, RunningApp, settings_for, start_app


async def ready(app: RunningApp) -> tuple[int, list[str]]:
    reply = await app.ask("GET", "/health/ready")
    reasons = [reason for reason in reply.json()["reasons"] if reason != "unsafe-durability"]
    return reply.status_code, reasons


@pytest.fixture
def deaf(sqlite_app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> RunningApp:
    """An app that hears nothing any more, and has not for two seconds."""

    async def observe_version() -> bool:
        return True

    monkeypatch.setattr(sqlite_app.process.changes.subscriber, "read_changes", observe_version)
    sqlite_app.process.caching.lease.renew(boottime() - 2)
    return sqlite_app


async def test_without_news_reads_are_right_and_health_says_so(deaf: RunningApp) -> None:
    assert await ready(deaf) == (200, ["news-unavailable"])
    deaf.process.caching.lease.renew(boottime())
    assert await ready(deaf) == (200, [])


async def test_without_the_store_it_is_degraded_until_nothing_may_be_answered(
    deaf: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(deaf.process.stores.database, "ping", away)
    assert await ready(deaf) == (200, ["store-unavailable"])
    deaf.process.reads.reader._stale_seconds = 1
    assert await ready(deaf) == (503, ["store-unavailable"])


async def test_what_watchers_wait_for_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ages = [4.9]
    monkeypatch.setattr(SqliteChangeFeed, "watermark_age", lambda _: ages[0])
    async with start_app(settings_for(tmp_path / "data", None)) as app:
        token = await app.token("root", *ADMIN)
        assert await ready(app) == (200, [])
        ages[0] = 5.1
        assert await ready(app) == (200, ["watch-delayed"])
        page = (await app.ask("GET", "/metrics", token=token)).text
        assert "confide_horizon_age_seconds 5.1" in page
