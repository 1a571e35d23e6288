"""Sessions on the PostgreSQL of the distribution, with its defaults and with hostile ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from confide.database.postgresql.session import SETTINGS
from confide.errors import DatabaseUnavailable
from confide.server.stores import Stores, open_stores
from support.postgres import LocalPostgresServer, find_distribution_binaries
from support.rows import KEY, append, build_version

# What a role could have set, each of which would break or slow down a statement of Confide.
HOSTILE = {
    "jit": "on",
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "SQL, DMY",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "500",
    "lock_timeout": "500",
    "idle_in_transaction_session_timeout": "500",
    "idle_session_timeout": "500",
    "enable_indexscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "work_mem": "64kB",
}


@pytest.fixture(scope="module")
def distribution() -> Iterator[LocalPostgresServer]:
    """The server of the distribution, with its defaults."""
    server = LocalPostgresServer(options=(), binaries=find_distribution_binaries())
    server.start()
    yield server
    server.remove()


@pytest.fixture
async def stores(distribution: LocalPostgresServer) -> AsyncIterator[Stores]:
    stores = open_stores(distribution.new_database())
    await stores.database.connect()
    await stores.database.migrate()
    await stores.database.open()
    yield stores
    await stores.close()


async def read_settings(stores: Stores) -> dict[str, str]:
    rows = await stores.engine.query("SELECT name, setting FROM pg_settings WHERE name = ANY($1)", [*SETTINGS])
    return {str(name): str(setting) for name, setting in rows}


async def test_a_server_with_jit_does_not_compile(distribution: LocalPostgresServer, stores: Stores) -> None:
    plain: Any = await distribution.fetch("SELECT current_setting('jit')")
    assert plain[0][0] == "on", "this server cannot show the fault"
    assert (await read_settings(stores))["jit"] == "off"


async def test_settings_of_a_role_do_not_reach_a_session(distribution: LocalPostgresServer) -> None:
    url = distribution.new_database()
    database = url.rsplit("/", 1)[1]
    for name, value in HOSTILE.items():
        distribution.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")
    stores = open_stores(url)
    await stores.database.connect()
    await stores.database.migrate()
    await stores.database.open()
    settings = await read_settings(stores)
    assert {name for name, value in HOSTILE.items() if settings[name].lower() == value.lower()} == set()
    assert await append(stores, build_version(1))
    assert (await stores.configs.read(KEY)) is not None
    await stores.change_feed.read()
    await append(stores, build_version(2))
    (change,) = await stores.change_feed.read()
    assert change.version == 2
    await stores.close()


async def test_the_schema_of_the_first_connection_stays(distribution: LocalPostgresServer) -> None:
    url = distribution.new_database()
    database = url.rsplit("/", 1)[1]
    await distribution.fetch('CREATE SCHEMA "of Confide"', database=database)
    distribution.execute(f'ALTER DATABASE {database} SET search_path = "of Confide"')
    stores = open_stores(url)
    await stores.database.connect()
    await stores.database.migrate()
    await stores.database.open()
    await append(stores, build_version(1))
    distribution.execute(f"ALTER DATABASE {database} SET search_path = public")
    await distribution.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
    for _ in range(3):
        try:
            assert (await stores.configs.read(KEY)) is not None
            break
        except DatabaseUnavailable:
            await asyncio.sleep(0.6)
    else:
        pytest.fail("the tables are not found")
    await stores.close()


async def test_a_search_path_without_a_schema_is_reported(distribution: LocalPostgresServer) -> None:
    url = distribution.new_database()
    distribution.execute(f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET search_path = missing")
    stores = open_stores(url)
    with pytest.raises(DatabaseUnavailable, match="no existing schema"):
        await stores.database.connect()
    await stores.close()
