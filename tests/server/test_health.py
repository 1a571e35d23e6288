"""The health check reports an unavailable database, an unavailable change feed, and delayed watchers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from confide.changes.sqlite_feed import SqliteChangeFeed
from confide.clock import read_boot_clock
from confide.errors import DatabaseUnavailable
from support.app import ADMIN, RunningApp, build_settings, start_app


async def check_health(app: RunningApp) -> tuple[int, list[str]]:
    """Return the status and the reasons, except that tests do not wait for the disk."""
    reply = await app.request("GET", "/health/ready")
    reasons = [reason for reason in reply.json()["reasons"] if reason != "unsafe-durability"]
    return reply.status_code, reasons


@pytest.fixture
def disconnected_app(sqlite_app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> RunningApp:
    """An app that has received no changes for two seconds."""

    async def read_no_changes() -> bool:
        return True

    monkeypatch.setattr(sqlite_app.process.changes.subscriber, "read_changes", read_no_changes)
    sqlite_app.process.caching.lease.renew(read_boot_clock() - 2)
    return sqlite_app


async def test_an_unavailable_change_feed_degrades_the_health(disconnected_app: RunningApp) -> None:
    assert await check_health(disconnected_app) == (200, ["news-unavailable"])
    disconnected_app.process.caching.lease.renew(read_boot_clock())
    assert await check_health(disconnected_app) == (200, [])


async def test_an_unavailable_database_degrades_the_health_until_stale_reads_end(
    disconnected_app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(disconnected_app.process.stores.database, "ping", fail)
    assert await check_health(disconnected_app) == (200, ["store-unavailable"])
    disconnected_app.process.reads.reader._max_stale_seconds = 1
    assert await check_health(disconnected_app) == (503, ["store-unavailable"])


async def test_a_data_folder_that_is_gone_degrades_the_health(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with start_app(build_settings(folder, None)) as app:
        folder.rename(tmp_path / "gone")
        assert await check_health(app) == (200, ["stamps-unavailable", "store-unavailable"])
        (tmp_path / "gone").rename(folder)


async def test_a_long_transaction_that_delays_watchers_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages = [4.9]
    monkeypatch.setattr(SqliteChangeFeed, "compute_watermark_age_seconds", lambda _: ages[0])
    async with start_app(build_settings(tmp_path / "data", None)) as app:
        token = await app.create_token("root", *ADMIN)
        assert await check_health(app) == (200, [])
        ages[0] = 5.1
        assert await check_health(app) == (200, ["watch-delayed"])
        page = (await app.request("GET", "/metrics", token=token)).text
        assert "confide_horizon_age_seconds 5.1" in page
