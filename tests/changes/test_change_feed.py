"""News: every change that was committed is heard, none twice, whatever else is under way; and soon."""

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
from confide.database.postgresql.watermark import MAX_SAMPLES, Watermark
from confide.errors import DatabaseUnavailable
from confide.names import Key
from confide.server.settings import Settings
from confide.server.stores import Stores
from support.postgres import PostgresServer
from support.proxy import Proxy
from support.rows import append, opened, version


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[tuple[Stores, Stores]]:
    """Two processes' stores of one database: one writes, the other listens."""
    one = await opened(settings)
    other = await opened(settings)
    yield one, other
    await other.close()
    await one.close()


def named(number: int) -> Key:
    return Key("acme", f"type-{number}")


async def heard_within(news: ChangeFeed, seconds: float) -> list[Change]:
    """What is heard until something is, by the rhythm that the engine has."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if changes := await news.read():
            return changes
        await news.wait()
    return []


async def test_the_first_read_hears_nothing_and_the_next_what_came_since(stores: tuple[Stores, Stores]) -> None:
    writer, listener = stores
    await append(writer, version(1, key=named(0)))
    assert await listener.change_feed.read() == []
    assert await listener.change_feed.read() == []
    await append(writer, version(1, key=named(1)))
    await append(writer, version(2, key=named(1)))
    changes = await heard_within(listener.change_feed, 5)
    assert [(change.kind, change.key, change.version) for change in changes] == [
        ("saved", named(1), 1),
        ("saved", named(1), 2),
    ]
    assert await listener.change_feed.read() == []


async def test_a_process_hears_its_own_changes_too(stores: tuple[Stores, Stores]) -> None:
    writer, _ = stores
    await writer.change_feed.read()
    await append(writer, version(1))
    assert len(await heard_within(writer.change_feed, 5)) == 1


async def test_of_many_writers_each_change_is_heard_once(stores: tuple[Stores, Stores]) -> None:
    writer, listener = stores
    await listener.change_feed.read()
    heard: list[Change] = []
    is_done = False

    async def listen() -> None:
        while not is_done:
            heard.extend(await listener.change_feed.read())
            await asyncio.sleep(0)
        heard.extend(await listener.change_feed.read())

    listening = asyncio.create_task(listen())
    await asyncio.gather(*(append(writer, version(1, key=named(number))) for number in range(200)))
    is_done = True
    await listening
    assert sorted(change.key for change in heard if change.key) == sorted(named(number) for number in range(200))


async def test_a_store_with_another_epoch_is_another_log(stores: tuple[Stores, Stores]) -> None:
    writer, listener = stores
    await append(writer, version(1))
    await listener.change_feed.read()
    engine = writer.database._host_engine

    def begin_anew() -> Any:
        yield statement("UPDATE store SET epoch = 'f00df00df00df00d'")

    await engine.transact(begin_anew())
    with pytest.raises(ChangeFeedReset):
        await listener.change_feed.read()
    await append(writer, version(2))
    assert [change.version for change in await heard_within(listener.change_feed, 5)] == [2]


async def test_who_has_missed_too_much_begins_anew(
    stores: tuple[Stores, Stores], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, listener = stores
    await listener.change_feed.read()
    monkeypatch.setattr(postgresql_feed if engine == "postgres" else sqlite_feed, "MAX_CHANGES", 5)
    for number in range(6):
        await append(writer, version(1, key=named(number)))
    with pytest.raises(ChangeFeedReset):
        await listener.change_feed.read()
    await append(writer, version(2, key=named(0)))
    assert [change.version for change in await heard_within(listener.change_feed, 5)] == [2]


async def test_another_timeline_is_another_log(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    """As after a standby that had not heard of the last changes took over."""
    writer, listener, _ = on_postgres
    news: Any = listener.change_feed
    await news.read()
    news._read_timeline = "0000000F"
    with pytest.raises(ChangeFeedReset):
        await news.read()
    await append(writer, version(1))
    assert [change.version for change in await heard_within(news, 5)] == [1]


async def test_numbers_of_transactions_that_a_crash_gave_again_are_heard(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    writer, listener, _ = on_postgres
    news: Any = listener.change_feed
    await append(writer, version(1))
    await news.read()
    # What was seen before the crash: transactions that were begun and never came to the disk.
    xmin, xmax, _ = news._snapshot.split(":")
    news._snapshot = f"{int(xmin) + 50}:{int(xmax) + 50}:"
    await append(writer, version(2))
    await news.close()
    assert [change.version for change in await news.read()] == [2]


@pytest.mark.parametrize(
    ("snapshot", "xid", "lowered"),
    [
        ("10:20:10,15", 100, "10:20:10,15"),
        ("10:20:10,15", 12, "10:12:10"),
        ("10:20:10,15", 5, "5:5:"),
        ("20:20:", 20, "20:20:"),
    ],
)
def test_a_snapshot_is_lowered_to_what_is_sure(snapshot: str, xid: int, lowered: str) -> None:
    assert postgresql_feed._lower_snapshot(snapshot, xid) == lowered


@pytest.fixture
async def on_postgres(tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[tuple[Stores, Stores, str]]:
    url = postgres.new_database()
    settings = Settings(data=tmp_path / "data", database=url)
    one, other = await opened(settings), await opened(settings)
    yield one, other, url
    await other.close()
    await one.close()


async def test_a_long_transaction_elsewhere_delays_no_news_and_its_own_are_heard_when_it_ends(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    writer, listener, url = on_postgres
    await listener.change_feed.read()
    slow = await asyncpg.connect(url)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("INSERT INTO changes (kind, subject, saved_at) VALUES ('user-changed', 7, 0)")
    for number in range(30):
        await append(writer, version(1, key=named(number)))
        changes = await listener.change_feed.read()
        assert [change.key for change in changes] == [named(number)]
    await transaction.commit()
    await slow.close()
    assert [(change.kind, change.subject) for change in await listener.change_feed.read()] == [("user-changed", 7)]
    assert await listener.change_feed.read() == []


async def test_the_horizon_is_as_old_as_the_first_change_that_waits_for_a_transaction(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    writer, listener, url = on_postgres
    await listener.change_feed.read()
    elsewhere = [await asyncpg.connect(url) for _ in range(2)]
    waits = []
    for number, connection in enumerate(elsewhere):
        await connection.execute("BEGIN; SELECT pg_current_xact_id()")
        await listener.change_feed.read()
        await append(writer, version(1, key=named(number)))
        waits.append(time.monotonic())
        await listener.change_feed.read()
        await asyncio.sleep(0.4)
    for since, connection in zip(waits, elsewhere, strict=True):
        await listener.change_feed.read()
        waited = time.monotonic() - since
        assert 0.4 < listener.change_feed.watermark_age() <= waited
        await connection.execute("COMMIT")
        await connection.close()
    await listener.change_feed.read()
    assert listener.change_feed.watermark_age() == 0


async def test_a_transaction_that_nothing_waits_for_makes_no_horizon_old(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    _, listener, url = on_postgres
    await listener.change_feed.read()
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN; SELECT pg_current_xact_id()")
    await listener.change_feed.read()
    await asyncio.sleep(0.1)
    await listener.change_feed.read()
    assert listener.change_feed.watermark_age() == 0
    await connection.close()


def test_a_horizon_held_for_hours_is_remembered_in_little_room() -> None:
    horizon = Watermark()
    for number in range(20_001):
        horizon.observe(f"100:{101 + number}:100", at=number * 0.3)
    assert horizon.compute_age_seconds() == 6_000
    assert len(horizon._samples) <= MAX_SAMPLES
    horizon.observe("15000:30000:15000", at=6_000.0)
    assert 1_500 - 32 * 0.3 < horizon.compute_age_seconds() <= 6_000 - 14_900 * 0.3
    horizon.observe("30000:30000:", at=6_003.0)
    assert horizon.compute_age_seconds() == 0


def test_a_horizon_grows_no_older_while_nothing_is_read() -> None:
    horizon = Watermark()
    horizon.observe("100:103:100", at=10)
    horizon.observe("100:104:100", at=12)
    assert horizon.compute_age_seconds() == 2, "however late it is by now"


async def test_a_plain_cursor_would_have_missed_it(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    """The planted fault: rows after the last id that was seen."""
    writer, _, url = on_postgres
    slow = await asyncpg.connect(url)
    transaction = slow.transaction()
    await transaction.start()
    late = await slow.fetchval("INSERT INTO changes (kind, saved_at) VALUES ('user-changed', 0) RETURNING id")
    await append(writer, version(1))
    ((last,),) = await writer.database._host_engine.query("SELECT max(id) FROM changes")
    await transaction.commit()
    await slow.close()
    rows = await writer.database._host_engine.query("SELECT id FROM changes WHERE id > $1", last)
    assert late < last
    assert late not in [row[0] for row in rows]


async def test_who_is_told_hears_at_once_and_not_at_the_next_heartbeat(
    on_postgres: tuple[Stores, Stores, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, listener, _ = on_postgres
    monkeypatch.setattr(postgresql_feed, "HEARTBEAT_SECONDS", 30)
    await listener.change_feed.read()
    await writer.change_feed.read()
    await append(writer, version(1))
    writer.change_feed.notify()
    waiting = asyncio.create_task(listener.change_feed.wait())
    await writer.change_feed.wait()
    await writer.change_feed.read()
    await asyncio.wait_for(waiting, 10)
    assert len(await listener.change_feed.read()) == 1


async def test_after_a_lost_connection_the_log_is_read_on_from_where_it_stopped(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.new_database()
    proxy = Proxy(postgres.port, host=postgres.host)
    await proxy.start()
    writer = await opened(Settings(data=tmp_path / "data", database=url))
    through = postgres.build_proxied_url(url, proxy.port)
    listener = await opened(Settings(data=tmp_path / "data", database=through))
    try:
        await listener.change_feed.read()
        for number, harm in enumerate((proxy.cut, proxy.stall, proxy.cut)):
            await append(writer, version(1, key=named(number)))
            harm()
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailable):
                await listener.change_feed.read()
            assert time.monotonic() - began < 1
            await append(writer, version(2, key=named(number)))
            proxy.heal()
            changes = await heard_within(listener.change_feed, 10)
            assert [(change.key, change.version) for change in changes] == [(named(number), 1), (named(number), 2)]
    finally:
        await listener.close()
        await writer.close()
        await proxy.stop()


async def test_the_reading_of_news_walks_the_index_however_much_there_is(
    on_postgres: tuple[Stores, Stores, str],
) -> None:
    writer, _, url = on_postgres
    for number in range(50):
        await append(writer, version(1, key=named(number)))
    connection = await asyncpg.connect(url)
    await connection.execute("ANALYZE")
    await connection.execute(postgresql_feed.PREPARE)
    snapshot = await connection.fetchval("SELECT pg_current_snapshot()::text")
    await connection.execute(f"PREPARE news (text, bigint) AS {postgresql_feed.SINCE}")
    plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE news ('{snapshot}', 20001)"))
    await connection.close()
    assert "changes_position" in plan
    assert "Seq Scan on changes" not in plan
