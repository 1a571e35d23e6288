"""Sessions on the PostgreSQL of the distribution, with its defaults and with hostile ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from confide.changes.model import Change
from confide.database.errors import UnsafeDurability
from confide.database.postgresql.engine import UNAVAILABLE_SECONDS
from confide.database.postgresql.session import SETTINGS
from confide.errors import DatabaseUnavailable
from confide.server.stores import Stores, open_stores
from support.distribution import HOSTILE, DistributionServer
from support.rows import KEY, append, build_version
from support.waiting import MAX_WAIT_SECONDS

# No session changes these: they are decisions of the operator, and a database with them is rejected.
OPERATOR_SETTINGS = frozenset({"default_transaction_read_only", "synchronous_commit"})
# Not settings of a session, although PostgreSQL lists them as such.
TRANSACTION_SETTINGS = frozenset({"transaction_isolation", "transaction_deferrable", "transaction_read_only"})
EXTREMES: dict[str, Callable[[asyncpg.Record], str | None]] = {
    "each switch in its other position": lambda row: {"on": "off", "off": "on"}.get(row["setting"]),
    "the first choice of each setting": lambda row: row["enumvals"][0] if row["enumvals"] else None,
    "the last choice of each setting": lambda row: row["enumvals"][-1] if row["enumvals"] else None,
    "each number at its minimum": lambda row: row["min_val"],
    "each number at its maximum": lambda row: row["max_val"],
}


async def open_database(url: str) -> Stores:
    # A busy machine may need longer than the service waits.
    stores = open_stores(f"{url}{'&' if '?' in url else '?'}connect_timeout={MAX_WAIT_SECONDS:.0f}")
    try:
        await stores.database.connect()
        await stores.database.migrate()
        await stores.database.open()
    except BaseException:
        await stores.close()
        raise
    return stores


@pytest.fixture
async def stores(distribution: DistributionServer) -> AsyncIterator[Stores]:
    stores = await open_database(distribution.new_database())
    yield stores
    await stores.close()


async def read_changes(stores: Stores) -> list[Change]:
    """Read the change feed, again if a busy machine exceeds its limit. It continues from its last read."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            try:
                return await stores.change_feed.read()
            except DatabaseUnavailable:
                await asyncio.sleep(UNAVAILABLE_SECONDS)


async def save_and_read(stores: Stores) -> None:
    """Use each kind of statement: a migration, a save, a read, the change feed, a list and a dump."""
    await read_changes(stores)
    note = "naïve → 漢字 😀"
    for number in (1, 2, 3):
        assert await append(stores, replace(build_version(number), note=note))
        read = await stores.configs.read(KEY)
        assert read is not None
        assert read.version == number
    assert [change.version for change in await read_changes(stores)] == [1, 2, 3]
    assert [version.note for version in await stores.configs.list_versions(KEY, before=None, limit=2)] == [note, note]
    assert [row.table async for row in stores.database.dump()].count("changes") == 3


async def read_settings(stores: Stores) -> dict[str, str]:
    rows = await stores.engine.query("SELECT name, setting FROM pg_settings WHERE name = ANY($1)", [*SETTINGS])
    return {str(name): str(setting) for name, setting in rows}


async def test_a_server_with_jit_does_not_compile(distribution: DistributionServer, stores: Stores) -> None:
    plain: Any = await distribution.fetch("SELECT current_setting('jit')")
    assert plain[0][0] == "on", "this server cannot show the fault"
    assert (await read_settings(stores))["jit"] == "off"


async def test_settings_of_a_role_do_not_reach_a_session(distribution: DistributionServer, stores: Stores) -> None:
    url = distribution.new_database()
    distribution.set_for_database(url, HOSTILE)
    hostile = await open_database(url)
    assert await read_settings(hostile) == await read_settings(stores)
    await save_and_read(hostile)
    await hostile.close()


async def test_a_limit_of_one_millisecond_does_not_end_the_setup_of_a_session(
    distribution: DistributionServer, stores: Stores
) -> None:
    url = distribution.new_database()
    distribution.set_for_database(url, {"statement_timeout": "1"})
    # The limit ends the first statement only if the machine is busy. Before, it ended one of the later ones each time.
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            try:
                hostile = await open_database(url)
                break
            except DatabaseUnavailable:
                await asyncio.sleep(UNAVAILABLE_SECONDS)
    assert await read_settings(hostile) == await read_settings(stores)
    await hostile.close()


@pytest.mark.parametrize("pick", EXTREMES.values(), ids=EXTREMES)
async def test_no_setting_of_a_session_breaks_a_statement(
    distribution: DistributionServer, pick: Callable[[asyncpg.Record], str | None]
) -> None:
    """Every setting that this version of PostgreSQL knows, not only those of a list."""
    url = distribution.new_database()
    rows = await distribution.fetch(
        "SELECT name, setting, enumvals, min_val, max_val FROM pg_settings WHERE context IN ('user', 'superuser')"
    )
    chosen = {row["name"]: pick(row) for row in rows if row["name"] not in OPERATOR_SETTINGS | TRANSACTION_SETTINGS}
    # The kernel limits the stack below the maximum of the setting.
    chosen["max_stack_depth"] = None
    hostile = {name: value for name, value in chosen.items() if value is not None}
    assert len(hostile) > 15
    distribution.set_for_database(url, hostile)
    stores = await open_database(url)
    await save_and_read(stores)
    await stores.close()


async def test_the_schema_of_the_first_connection_stays(distribution: DistributionServer) -> None:
    url = distribution.new_database()
    database = url.rsplit("/", 1)[1]
    await distribution.fetch('CREATE SCHEMA "of Confide" AUTHORIZATION confide', database=database)
    distribution.execute(f'ALTER DATABASE {database} SET search_path = "of Confide"')
    stores = await open_database(url)
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


async def test_a_search_path_without_a_schema_is_reported(distribution: DistributionServer) -> None:
    url = distribution.new_database()
    distribution.execute(f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET search_path = missing")
    stores = open_stores(url)
    with pytest.raises(DatabaseUnavailable, match="no schema that the role can use"):
        await stores.database.connect()
    await stores.close()


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
async def test_a_database_stores_each_text_also_without_a_locale(
    distribution: DistributionServer, encoding: str
) -> None:
    stores = await open_database(distribution.create_database(f"TEMPLATE template0 LOCALE 'C' ENCODING '{encoding}'"))
    await save_and_read(stores)
    await stores.close()


async def test_a_new_database_whose_encoding_lacks_characters_is_rejected(distribution: DistributionServer) -> None:
    url = distribution.create_database("TEMPLATE template0 LOCALE 'C' ENCODING 'LATIN1'")
    with pytest.raises(UnsafeDurability, match="LATIN1 cannot store every text"):
        await open_database(url)


async def test_the_service_uses_tls_if_the_server_offers_it(distribution: DistributionServer, stores: Stores) -> None:
    """As the certificate of the distribution does, where the cluster may read it."""
    ((offers,),) = await distribution.fetch("SELECT current_setting('ssl') = 'on'")
    if not offers:
        reason = "the certificate is missing: apt-get install ssl-cert"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    assert await stores.engine.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]


async def test_the_service_can_use_the_unix_socket_without_a_password(distribution: DistributionServer) -> None:
    """Debian's clusters identify such a client by the name of its user (`peer`)."""
    stores = await open_database(distribution.new_socket_database())
    await save_and_read(stores)
    await stores.close()
