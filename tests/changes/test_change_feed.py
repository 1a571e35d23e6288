"""The change feed delivers each committed change once and soon, while other transactions run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from confide.changes import postgresql_feed, sqlite_feed
from confide.changes.feed import ChangeFeed
from confide.changes.model import Change, ChangeFeedReset
from confide.database.engine import statement
from confide.database.postgresql.session import apply_settings
from confide.database.postgresql.watermark import MAX_SAMPLES, Watermark
from confide.errors import DatabaseUnavailable
from confide.names import ConfigKey
from confide.server.settings import Settings
from confide.server.stores import Stores
from support.bounds import assert_within
from support.postgres import PostgresServer
from support.proxy import Proxy
from support.rows import append, build_version, open_store


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[tuple[Stores, Stores]]:
    """Open the stores of two processes on one database: one writes, the other reads the feed."""
    one = await open_store(settings)
    other = await open_store(settings)
    yield one, other
    await other.close()
    await one.close()


def build_key(number: int) -> ConfigKey:
    return ConfigKey("acme", f"type-{number}")


async def read_within(feed: ChangeFeed, seconds: float) -> list[Change]:
    """Read the feed until it returns changes, waiting as the engine does between two reads."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if changes := await feed.read():
            return changes
        await feed.wait()
    return []


async def test_the_first_read_returns_nothing_and_the_next_returns_later_changes(stores: tuple[Stores, Stores]) -> None:
    writer, reader = stores
    await append(writer, build_version(1, key=build_key(0)))
    assert await reader.change_feed.read() == []
    assert await reader.change_feed.read() == []
    await append(writer, build_version(1, key=build_key(1)))
    await append(writer, build_version(2, key=build_key(1)))
    changes = await read_within(reader.change_feed, 5)
    assert [(change.kind, change.key, change.version) for change in changes] == [
        ("saved", build_key(1), 1),
        ("saved", build_key(1), 2),
    ]
    assert await reader.change_feed.read() == []


async def test_a_process_receives_its_own_changes(stores: tuple[Stores, Stores]) -> None:
    writer, _ = stores
    await writer.change_feed.read()
    await append(writer, build_version(1))
    assert len(await read_within(writer.change_feed, 5)) == 1


async def test_each_change_of_concurrent_writers_is_received_once(stores: tuple[Stores, Stores]) -> None:
    writer, reader = stores
    await reader.change_feed.read()
    received: list[Change] = []
    is_done = False

    async def read_all() -> None:
        while not is_done:
            received.extend(await reader.change_feed.read())
            await asyncio.sleep(0)
        received.extend(await reader.change_feed.read())

    reading = asyncio.create_task(read_all())
    await asyncio.gather(*(append(writer, build_version(1, key=build_key(number))) for number in range(200)))
    is_done = True
    await reading
    assert sorted(change.key for change in received if change.key) == sorted(build_key(number) for number in range(200))


async def test_a_new_epoch_resets_the_feed(stores: tuple[Stores, Stores]) -> None:
    writer, reader = stores
    await append(writer, build_version(1))
    await reader.change_feed.read()
    engine = writer.database._host_engine

    def change_epoch() -> Any:
        yield statement("UPDATE store SET epoch = 'f00df00df00df00d'")

    await engine.transact(change_epoch())
    with pytest.raises(ChangeFeedReset):
        await reader.change_feed.read()
    assert not await append(writer, build_version(2)), "it was planned in the epoch that ended"
    assert await append(writer, build_version(2))
    assert [change.version for change in await read_within(reader.change_feed, 5)] == [2]


async def test_too_many_changes_reset_the_feed(
    stores: tuple[Stores, Stores], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = stores
    await reader.change_feed.read()
    monkeypatch.setattr(postgresql_feed if engine == "postgresql" else sqlite_feed, "MAX_CHANGES", 5)
    for number in range(6):
        await append(writer, build_version(1, key=build_key(number)))
    with pytest.raises(ChangeFeedReset):
        await reader.change_feed.read()
    await append(writer, build_version(2, key=build_key(0)))
    assert [change.version for change in await read_within(reader.change_feed, 5)] == [2]


async def test_a_server_of_an_earlier_timeline_is_not_read(on_postgres: tuple[Stores, Stores, str]) -> None:
    """Simulate an old primary that is back after a failover."""
    _, reader, _ = on_postgres
    feed: Any = reader.change_feed
    await feed.read()
    feed._continuity._timeline += 1
    for _ in range(2):  # on the same connection, and on a new one
        with pytest.raises(DatabaseUnavailable, match="it is an old primary"):
            await feed.read()


async def test_changes_with_transaction_ids_reused_after_a_crash_are_received(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    writer, reader, _ = on_postgres
    feed: Any = reader.change_feed
    await append(writer, build_version(1))
    await feed.read()
    # The snapshot from before the crash has transactions that never reached the disk.
    xmin, xmax, _ = feed._snapshot.split(":")
    feed._snapshot = f"{int(xmin) + 50}:{int(xmax) + 50}:"
    await append(writer, build_version(2))
    await feed.close()
    assert [change.version for change in await feed.read()] == [2]


@pytest.mark.parametrize(
    ("snapshot", "xid", "lowered"),
    [
        ("10:20:10,15", 100, "10:20:10,15"),
        ("10:20:10,15", 12, "10:12:10"),
        ("10:20:10,15", 5, "5:5:"),
        ("20:20:", 20, "20:20:"),
    ],
)
def test_a_snapshot_is_lowered_below_a_transaction(snapshot: str, xid: int, lowered: str) -> None:
    assert postgresql_feed._lower_snapshot(snapshot, xid) == lowered


@pytest.fixture
async def on_postgres(tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[tuple[Stores, Stores, str]]:
    url = postgres.new_database()
    settings = Settings(data=tmp_path / "data", database=url)
    one, other = await open_store(settings), await open_store(settings)
    yield one, other, url
    await other.close()
    await one.close()


async def test_a_long_transaction_delays_only_its_own_changes(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    writer, reader, url = on_postgres
    await reader.change_feed.read()
    slow = await asyncpg.connect(url)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("INSERT INTO changes (kind, subject, saved_at) VALUES ('user-changed', 7, 0)")
    for number in range(30):
        await append(writer, build_version(1, key=build_key(number)))
        changes = await reader.change_feed.read()
        assert [change.key for change in changes] == [build_key(number)]
    await transaction.commit()
    await slow.close()
    assert [(change.kind, change.subject) for change in await reader.change_feed.read()] == [("user-changed", 7)]
    assert await reader.change_feed.read() == []


async def test_the_watermark_is_as_old_as_the_first_change_that_waits_for_a_transaction(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    writer, reader, url = on_postgres
    await reader.change_feed.read()
    connections = [await asyncpg.connect(url) for _ in range(2)]
    committed_at = []
    for number, connection in enumerate(connections):
        await connection.execute("BEGIN; SELECT pg_current_xact_id()")
        await reader.change_feed.read()
        await append(writer, build_version(1, key=build_key(number)))
        committed_at.append(time.monotonic())
        await reader.change_feed.read()
        await asyncio.sleep(0.4)
    for since, connection in zip(committed_at, connections, strict=True):
        await reader.change_feed.read()
        waited_seconds = time.monotonic() - since
        assert 0.4 < reader.change_feed.compute_watermark_age_seconds() <= waited_seconds
        await connection.execute("COMMIT")
        await connection.close()
    await reader.change_feed.read()
    assert reader.change_feed.compute_watermark_age_seconds() == 0


async def test_a_transaction_that_delays_no_change_does_not_age_the_watermark(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    _, reader, url = on_postgres
    await reader.change_feed.read()
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN; SELECT pg_current_xact_id()")
    await reader.change_feed.read()
    await asyncio.sleep(0.1)
    await reader.change_feed.read()
    assert reader.change_feed.compute_watermark_age_seconds() == 0
    await connection.close()


def test_a_watermark_that_is_old_for_hours_needs_little_memory() -> None:
    watermark = Watermark()
    for number in range(20_001):
        watermark.observe(f"100:{101 + number}:100", at=number * 0.3)
    assert watermark.compute_age_seconds() == 6_000
    assert len(watermark._samples) <= MAX_SAMPLES
    watermark.observe("15000:30000:15000", at=6_000.0)
    assert 1_500 - 32 * 0.3 < watermark.compute_age_seconds() <= 6_000 - 14_900 * 0.3
    watermark.observe("30000:30000:", at=6_003.0)
    assert watermark.compute_age_seconds() == 0


def test_a_watermark_does_not_age_between_two_reads() -> None:
    watermark = Watermark()
    watermark.observe("100:103:100", at=10)
    watermark.observe("100:104:100", at=12)
    assert watermark.compute_age_seconds() == 2, "the age at the last snapshot"


async def test_reading_by_row_id_misses_a_change_that_commits_late(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    """A deliberate fault: read the rows after the last row ID."""
    writer, _, url = on_postgres
    slow = await asyncpg.connect(url)
    transaction = slow.transaction()
    await transaction.start()
    late = await slow.fetchval("INSERT INTO changes (kind, saved_at) VALUES ('user-changed', 0) RETURNING id")
    await append(writer, build_version(1))
    ((last,),) = await writer.database._host_engine.query("SELECT max(id) FROM changes")
    await transaction.commit()
    await slow.close()
    rows = await writer.database._host_engine.query("SELECT id FROM changes WHERE id > $1", last)
    assert late < last
    assert late not in [row[0] for row in rows]


async def test_a_notification_wakes_the_reader_before_the_next_heartbeat(
    on_postgres: tuple[Stores, Stores, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader, _ = on_postgres
    monkeypatch.setattr(postgresql_feed, "HEARTBEAT_SECONDS", 30)
    await reader.change_feed.read()
    await writer.change_feed.read()
    await append(writer, build_version(1))
    writer.change_feed.notify()
    waiting = asyncio.create_task(reader.change_feed.wait())
    await writer.change_feed.wait()
    await writer.change_feed.read()
    await asyncio.wait_for(waiting, 10)
    assert len(await reader.change_feed.read()) == 1


async def test_a_new_connection_continues_from_the_last_read(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    proxy = Proxy(postgres.port, host=postgres.host)
    await proxy.start()
    writer = await open_store(Settings(data=tmp_path / "data", database=url))
    through = postgres.build_proxied_url(url, proxy.port)
    reader = await open_store(Settings(data=tmp_path / "data", database=through))
    try:
        await reader.change_feed.read()
        for number, break_connection in enumerate((proxy.cut, proxy.stall, proxy.cut)):
            await append(writer, build_version(1, key=build_key(number)))
            break_connection()
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailable):
                await reader.change_feed.read()
            assert time.monotonic() - began < 1
            await append(writer, build_version(2, key=build_key(number)))
            proxy.heal()
            changes = await read_within(reader.change_feed, 10)
            assert [(change.key, change.version) for change in changes] == [
                (build_key(number), 1),
                (build_key(number), 2),
            ]
    finally:
        await reader.close()
        await writer.close()
        await proxy.stop()


async def test_a_connection_that_hangs_after_an_outage_is_left_as_soon_as_any(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.new_database()
    proxy = Proxy(postgres.port, host=postgres.host)
    await proxy.start()
    through = postgres.build_proxied_url(url, proxy.port)
    reader = await open_store(Settings(data=tmp_path / "data", database=through))
    try:
        await reader.change_feed.read()
        proxy.stall()
        for _ in range(5):
            with pytest.raises(DatabaseUnavailable):
                await reader.change_feed.read()
        # Connections work again up to the first read of the feed.
        proxy.heal()
        proxy.only = b"news.since"
        proxy.stall()
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await reader.change_feed.read()
        assert_within(time.monotonic() - began, 1.0, "leaving a connection that hangs")
    finally:
        await reader.close()
        await proxy.stop()


async def test_reading_the_feed_uses_the_index(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    writer, _, url = on_postgres
    for number in range(50):
        await append(writer, build_version(1, key=build_key(number)))
    connection = await asyncpg.connect(url)
    await connection.execute("ANALYZE")
    await apply_settings(connection, postgresql_feed.SETTINGS)
    snapshot = await connection.fetchval("SELECT pg_current_snapshot()::text")
    await connection.execute(f"PREPARE feed (text, bigint) AS {postgresql_feed.SINCE}")
    plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE feed ('{snapshot}', 20001)"))
    await connection.close()
    assert "changes_position" in plan
    assert "Seq Scan on changes" not in plan


async def test_a_read_that_outlasts_its_limit_succeeds_at_last(
    on_postgres: tuple[Stores, Stores, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader, _ = on_postgres
    await reader.change_feed.read()
    await append(writer, build_version(1))
    slow = postgresql_feed.SINCE.replace("FROM store", "FROM (SELECT pg_sleep(1)) AS slow, store")
    assert slow != postgresql_feed.SINCE
    monkeypatch.setattr(postgresql_feed, "SINCE", slow)
    failures = 0
    while True:
        try:
            changes = await reader.change_feed.read()
            break
        except DatabaseUnavailable:
            failures += 1
    assert [change.version for change in changes] == [1]
    assert failures > 0
