"""The life of a database: migrations, epochs, dumps, durability, and the use of its indexes."""

from __future__ import annotations

import asyncio
import gzip
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest

from confide.changes.model import Position
from confide.configs import store as configs
from confide.context import set_deadline
from confide.database import backup, dump, schema
from confide.database.engine import Statement
from confide.database.errors import NewerSchema, UnsafeDurability
from confide.database.schema import ChangedMigration, Migration
from confide.database.signed_rows import RowSigner
from confide.errors import DatabaseUnavailable
from confide.identity.model import NewToken, NewUser, Scope
from confide.names import ConfigKey
from confide.server.settings import Settings
from confide.server.stores import Stores, open_stores
from support.app import ADMIN, build_grants, build_settings
from support.postgres import OwnPostgresServer, PostgresServer
from support.rows import AUDIT, KEY, append, build_version, open_store
from support.waiting import MAX_WAIT_SECONDS, POLL_SECONDS


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Stores]:
    store = await open_store(settings)
    yield store
    await store.close()


async def sql(store: Any, text: str, *args: Any) -> list[tuple[Any, ...]]:
    """Run a statement that the contract of the stores does not have."""

    def work() -> Any:
        return (yield Statement(text, args))

    return [tuple(row) for row in await store.database._host_engine.transact(work())]


async def test_migrating_twice_changes_nothing(settings: Settings, engine: str) -> None:
    store = await open_store(settings)
    assert await store.database.migrate() == []
    assert await sql(store, "SELECT count(*) FROM schema_migrations") == [(len(schema.list_migrations(engine)),)]
    await store.close()


async def test_one_of_many_concurrent_processes_applies_the_migrations(settings: Settings, engine: str) -> None:
    settings.data.mkdir()
    stores = [open_stores(settings.database_url, is_unsafe=True) for _ in range(4)]
    for store in stores:
        await store.database.connect()
    applied = await asyncio.gather(*(store.database.migrate() for store in stores))
    assert sorted(map(len, applied)) == [0, 0, 0, len(schema.list_migrations(engine))]
    for store in stores:
        await store.close()


async def test_a_newer_schema_and_a_changed_migration_are_rejected(store: Stores) -> None:
    await sql(store, "INSERT INTO schema_migrations VALUES (9999, 'future', 'x', 1)")
    with pytest.raises(NewerSchema):
        await store.database.migrate()
    await sql(store, "DELETE FROM schema_migrations WHERE number = 9999")
    await sql(store, "UPDATE schema_migrations SET checksum = 'other' WHERE number = 1")
    with pytest.raises(ChangedMigration):
        await store.database.migrate()


async def read_schema(store: Any, engine: str) -> list[tuple[Any, ...]]:
    if engine == "sqlite":
        return await sql(store, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2")
    columns = await sql(
        store,
        "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name"
        " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
    )
    return columns + await sql(store, "SELECT tablename, indexname, indexdef FROM pg_indexes ORDER BY 1, 2, 3")


async def test_single_migrations_lead_to_the_same_schema_as_all_at_once(
    tmp_path: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    urls = []
    for name in ("fresh", "stepwise"):
        if engine == "postgresql":
            urls.append(request.getfixturevalue("postgres").new_database())
        else:
            (tmp_path / name).mkdir()
            urls.append(f"sqlite:///{tmp_path / name / 'confide.db'}")
    schemas = []
    for url, steps in zip(urls, (1, len(schema.list_migrations(engine))), strict=True):
        store: Any = open_stores(url, is_unsafe=True)
        await store.database.connect()
        migrations = schema.list_migrations(engine)
        for step in range(steps):
            until = len(migrations) if steps == 1 else step + 1
            await store.database._host_engine.transact_long(schema.migrate(migrations[:until], now=1))
        schemas.append([row for row in await read_schema(store, engine) if "sequence" not in str(row).lower()])
        await store.close()
    assert schemas[0] == schemas[1]
    assert len(schemas[0]) > 10


async def test_a_failing_migration_is_rolled_back(store: Any, engine: str) -> None:
    migrations = schema.list_migrations(engine)
    broken = Migration(len(migrations) + 1, "broken", "CREATE TABLE half (a BIGINT); CREATE TABLE changes (a BIGINT);")
    with pytest.raises((apsw.SQLError, asyncpg.PostgresError)):
        await store.database._host_engine.transact_long(schema.migrate([*migrations, broken], now=1))
    with pytest.raises((apsw.SQLError, asyncpg.PostgresError)):
        await sql(store, "SELECT * FROM half")


def test_the_two_engines_have_the_same_migrations() -> None:
    names = [
        [(step.number, step.name) for step in schema.list_migrations(engine)] for engine in ("sqlite", "postgresql")
    ]
    assert names[0] == names[1]


async def test_a_backup_holds_each_table_and_column_of_the_schema(store: Stores, engine: str) -> None:
    if engine == "sqlite":
        columns = "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c ORDER BY m.rowid, c.cid"
    else:
        # A transaction ID means nothing on another server.
        columns = """
            SELECT table_name::text, column_name::text FROM information_schema.columns
            WHERE table_schema = current_schema() AND column_name <> 'xid' ORDER BY table_name, ordinal_position
        """
    stored: dict[str, list[str]] = {}
    for table, column in await store.engine.query(columns):
        stored.setdefault(table, []).append(column)
    for table in ("login_attempts", "turns", "schema_migrations"):
        del stored[table]
    backed_up = {table: list(names) for table, names in dump.list_backed_up_tables().items()}
    assert backed_up == {table: names for table, names in stored.items() if not table.startswith("sqlite_")}


async def add_user_with_tokens(store: Stores) -> None:
    user_id = await store.users.add(NewUser("ada", build_grants(*ADMIN), "hash"), audit=AUDIT)
    for number, is_session in enumerate((True, False)):
        password_hash = "hash" if is_session else None
        new = NewToken(
            bytes([number]) * 32, user_id, is_session, "t", None, expires_at=2**60, password_hash=password_hash
        )
        await store.tokens.add(new, made_at=1, audit=AUDIT)
    await append(store, build_version(1))


async def test_a_database_that_was_not_moved_keeps_its_epoch_and_sessions(settings: Settings) -> None:
    store = await open_store(settings)
    await add_user_with_tokens(store)
    first = await store.database.open()
    second = await store.database.open()
    assert (first.epoch, second.is_new_epoch) == (second.epoch, False)
    assert len(await store.tokens.list_all(None)) == 2
    await store.close()


async def test_a_moved_database_begins_a_new_epoch_and_ends_sessions(settings: Settings, engine: str) -> None:
    store = await open_store(settings)
    await add_user_with_tokens(store)
    before = await store.database.open()
    if engine == "postgresql":
        # As after a restore into another cluster: transaction IDs that this one has not reached.
        await sql(store, "UPDATE changes SET xid = '123456789012'")
        await sql(store, "UPDATE store SET home = 'another cluster/1'")
    else:
        await sql(store, "UPDATE store SET home = 'inode 1'")
    after = await store.database.open()
    assert after.is_new_epoch
    assert after.epoch != before.epoch
    assert [token.is_session for token in await store.tokens.list_all(None)] == [False]
    changes = await store.configs.read_changes_after(Position(0, 0), limit=10)
    assert len(changes) == 4
    assert {change.position.xid for change in changes} == {0}
    assert await append(store, build_version(2))
    await store.close()


async def test_a_copy_that_replaces_the_file_is_detected_even_if_the_inode_is_reused(tmp_path: Path) -> None:
    path = tmp_path / "confide.db"
    url = f"sqlite:///{path}"
    store = open_stores(url, is_unsafe=True)
    await store.database.connect()
    await store.database.migrate()
    first = await store.database.open()
    await store.close()
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.confide.home", b"x")
    except OSError:
        pytest.skip("the file system has no extended attributes, so only the inode identifies the file")
    copy = path.read_bytes()
    path.unlink()
    path.write_bytes(copy)
    again = open_stores(url, is_unsafe=True)
    identity = await again.database.open()
    assert (identity.is_new_epoch, identity.epoch != first.epoch) == (True, True)
    await again.close()
    third = open_stores(url, is_unsafe=True)
    assert (await third.database.open()).epoch == identity.epoch
    await third.close()


async def test_a_dump_can_be_loaded_by_either_engine(store: Stores, tmp_path: Path, postgres: PostgresServer) -> None:
    await add_user_with_tokens(store)
    archive = tmp_path / "backup"
    count = await backup.write(store.database, archive, store.rows, key=None, progress=lambda _: None)
    assert backup.check(archive, store.rows) == count
    for number, url in enumerate((None, postgres.new_database())):
        other = await open_store(build_settings(tmp_path / f"restored{number}", url))
        assert await other.database.is_empty()
        await other.database.load(backup.read(archive, RowSigner(), header=backup.read_header(archive)))
        assert not await other.database.is_empty()
        found = await other.configs.read(KEY)
        assert found is not None
        assert found.body == b"ciphertext"
        assert [token.is_session for token in await other.tokens.list_all(None)] == [False]
        # Numbers continue after the loaded ones.
        assert await append(other, build_version(2))
        assert await other.users.add(NewUser("bob", (), None), audit=AUDIT) > 1
        await other.close()


@pytest.mark.parametrize("damage", ["cut", "changed", "not a backup"])
async def test_an_incomplete_or_changed_backup_is_rejected_and_nothing_is_loaded(
    store: Stores, tmp_path: Path, damage: str
) -> None:
    await add_user_with_tokens(store)
    archive = tmp_path / "backup"
    await backup.write(store.database, archive, store.rows, key=None, progress=lambda _: None)
    lines = gzip.decompress(archive.read_bytes()).splitlines(keepends=True)
    damaged = {
        "cut": lines[:-2],
        "changed": [line.replace(b'"ada"', b'"eve"') for line in lines],
        "not a backup": [b"hello\n"],
    }[damage]
    archive.write_bytes(gzip.compress(b"".join(damaged)))
    with pytest.raises(backup.ArchiveBroken):
        backup.check(archive, store.rows)
    other = await open_store(build_settings(tmp_path / "restored", None))
    with pytest.raises(backup.ArchiveBroken):
        await other.database.load(backup.read(archive, RowSigner(), header=backup.read_header(archive)))
    assert await other.database.is_empty()
    await other.close()


async def test_a_dump_is_one_snapshot(store: Stores) -> None:
    for number in range(1, 30):
        await append(store, build_version(number))
    rows = store.database.dump()
    first = await anext(rows)
    await append(store, build_version(30))
    await store.data_keys.destroy_tenant("acme", user_id=1, at=2, audit=AUDIT)
    dumped = [first, *[row async for row in rows]]
    changes = [row for table, row in dumped if table == "changes"]
    assert len(changes) == 29
    assert len([row for table, row in dumped if table == "audit"]) == 29


async def test_sqlite_is_durable_by_default(tmp_path: Path) -> None:
    store = open_stores(f"sqlite:///{tmp_path / 'confide.db'}")
    await store.database.connect()
    await store.database.migrate()
    identity = await store.database.open()
    assert (identity.durability, identity.is_unsafe) == ("SQLite wal, synchronous=FULL", False)
    await store.close()


async def test_a_postgresql_that_may_lose_saves_is_rejected(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    postgres.execute(f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET synchronous_commit = off")
    store = open_stores(url)
    with pytest.raises(UnsafeDurability, match="synchronous_commit=off"):
        await store.database.connect()
    await store.close()


async def wait_for_read(store: Stores, has_expected_error: Callable[[str], bool]) -> None:
    """Read a config until the error message is the expected one. Without an error it is empty."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            message = ""
            try:
                await store.configs.read(KEY)
            except DatabaseUnavailable as error:
                message = str(error) or "no message"
            if has_expected_error(message):
                return
            await asyncio.sleep(POLL_SECONDS)


async def test_durability_is_checked_on_each_new_connection(own_postgres: OwnPostgresServer) -> None:
    store = open_stores(own_postgres.new_database())
    await store.database.connect()
    await store.database.migrate()
    assert not (await store.database.open()).is_unsafe
    own_postgres.execute("ALTER SYSTEM SET synchronous_commit = off")
    own_postgres.stop()
    own_postgres.start()
    with pytest.raises(DatabaseUnavailable):
        await store.configs.read(KEY)
    # The engine does not connect again at once.
    await wait_for_read(store, lambda message: "synchronous_commit=off" in message)
    own_postgres.execute("ALTER SYSTEM RESET synchronous_commit")
    own_postgres.execute("SELECT pg_reload_conf()")
    await wait_for_read(store, lambda message: message == "")
    assert await store.configs.read(KEY) is None
    await store.close()


async def test_a_query_after_its_deadline_neither_blocks_later_ones_nor_keeps_a_connection(
    postgres: PostgresServer,
) -> None:
    store = open_stores(postgres.new_database(), is_unsafe=True, pool_size=2)
    await store.database.connect()
    for left in (0.05, 0.0, -1.0) * 4:
        set_deadline(time.monotonic() + left)
        with pytest.raises(DatabaseUnavailable):
            await store.database._host_engine.query("SELECT pg_sleep(0.3)")
    set_deadline(None)
    await store.database.ping()
    await store.close()


async def test_a_role_needs_only_to_own_its_database(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    name = url.rsplit("/", 1)[1]
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    postgres.execute(f"ALTER DATABASE {name} OWNER TO {name}")
    store = open_stores(postgres.url(name, role=f"{name}:{name}"), is_unsafe=True)
    await store.database.connect()
    await store.database.migrate()
    await store.database.open()
    assert await append(store, build_version(1))
    await store.close()


async def test_an_unreachable_or_broken_database_is_reported(tmp_path: Path) -> None:
    store = open_stores("postgresql://confide@127.0.0.1:1/nothing")
    with pytest.raises(DatabaseUnavailable):
        await store.database.connect()
    with pytest.raises(DatabaseUnavailable):
        await store.configs.read(KEY)
    await store.close()
    broken = tmp_path / "confide.db"
    broken.write_bytes(b"not a database" * 500)
    with pytest.raises(DatabaseUnavailable):
        await open_stores(f"sqlite:///{broken}").database.connect()


async def test_a_failing_transaction_does_not_affect_others_of_the_same_commit(tmp_path: Path) -> None:
    store = await open_store(build_settings(tmp_path, None))
    await append(store, build_version(1))
    results = await asyncio.gather(
        *(append(store, build_version(1, key=ConfigKey("acme", f"t{n}"))) for n in range(20)),
        sql(store, "INSERT INTO users (nonsense) VALUES (1)"),
        append(store, build_version(1)),
        return_exceptions=True,
    )
    assert results[:20] == [True] * 20
    assert isinstance(results[20], apsw.SQLError)
    assert results[21] is False
    await store.close()


async def test_only_the_owner_can_read_the_files_of_sqlite(tmp_path: Path) -> None:
    store = await open_store(build_settings(tmp_path / "data", None))
    await append(store, build_version(1))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data").iterdir()}
    assert set(modes) >= {"confide.db", "confide.db-wal", "confide.lock"}
    assert set(modes.values()) == {0o600}
    await store.close()


async def test_reads_and_lists_use_an_index(store: Any, engine: str) -> None:
    """With thousands of rows and current statistics, no query scans the whole table."""
    values = ", ".join(f"('saved', 'tenant{n:05}', 'crm', 1, 1, 1)" for n in range(5_000))
    await sql(
        store, f"INSERT INTO changes (kind, tenant, integration_type, version, saved_by, saved_at) VALUES {values}"
    )
    await sql(store, "ANALYZE")
    args: list[Any] = ["", "", 10]
    listing = configs.LIST.format(
        columns="", filters="", joined="", scopes=configs._build_scope_conditions([[Scope("tenant0123*", "*")]], args)
    )
    queries = [
        (configs.SQLITE_READ if engine == "sqlite" else configs.POSTGRESQL_READ, ["tenant00007", "crm"]),
        (listing, args),
    ]
    if engine == "postgresql":
        queries.append((configs.POSTGRESQL_CHANGES_AFTER, ["0", 0, 10]))
        queries.append((configs.POSTGRESQL_READ_MANY, [["tenant00007", "tenant00008"], ["crm", "crm"]]))
    for text, values_ in queries:
        if engine == "sqlite":
            plan = str(await sql(store, f"EXPLAIN QUERY PLAN {text}", *values_))
            assert "SCAN changes" not in plan, plan
            assert "SCAN c" not in plan.replace("SCAN CONSTANT", ""), plan
            assert "changes_version" in plan
        else:
            plan = str(await sql(store, f"EXPLAIN {text}", *values_))
            assert "Seq Scan on changes" not in plan, plan
