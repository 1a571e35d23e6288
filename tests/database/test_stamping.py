"""Transactions stamp the slots that they change: with the commit, before the answer, and also without an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from confide.caching.stamps import (
    EVERYTHING,
    LATEST,
    SlotChange,
    Stamps,
    find_config_slot,
    find_token_slot,
    find_type_slot,
)
from confide.context import set_deadline
from confide.database.engine import statement
from confide.database.postgresql.transaction import fetch_and_stamp, run_transaction
from confide.errors import DatabaseUnavailable
from confide.identity.token_format import hash_token
from confide.names import ConfigKey
from confide.server.settings import Settings
from confide.server.stores import Stores
from confide.telemetry.io_log import NO_IO_LOG
from support.app import ADMIN, TYPE, RunningApp
from support.postgres import PostgresServer
from support.proxy import Proxy
from support.rows import AUDIT, append, build_version, open_store

KEY = ConfigKey("acme", TYPE)
SLOT = 1_000
SELECT = "SELECT 1"


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Stores]:
    store = await open_store(settings)
    yield store
    await store.close()


def get_stamps(stores: Stores) -> Stamps:
    return stores.stamp_file.stamps


@contextmanager
def require_stamped(stamps: Stamps, *slots: int) -> Iterator[None]:
    """Require that each slot gets a new stamp, and no other slot."""
    before = list(stamps.words)
    yield
    changed = {slot for slot, word in enumerate(stamps.words) if word != before[slot]} - {LATEST}
    assert changed == set(slots)


async def test_a_transaction_stamps_its_slots_and_can_cache_its_result(store: Stores) -> None:
    stamps = get_stamps(store)
    change = SlotChange(SLOT, stamps.words[SLOT])

    def work() -> Any:
        yield change
        yield statement(SELECT)

    with require_stamped(stamps, SLOT):
        await store.engine.transact(work())
    assert change.own_stamp == stamps.words[SLOT]
    single = SlotChange(SLOT, stamps.words[SLOT])
    with require_stamped(stamps, SLOT):
        await store.engine.execute("DELETE FROM turns", changes=[single])
    assert single.own_stamp == stamps.words[SLOT]


async def test_a_transaction_that_is_rolled_back_stamps_nothing(store: Stores) -> None:
    stamps = get_stamps(store)

    def fail() -> Any:
        yield SlotChange(SLOT)
        raise LookupError

    def succeed() -> Any:
        yield SlotChange(SLOT + 1)
        yield statement(SELECT)

    with require_stamped(stamps, SLOT + 1):
        # On SQLite they are one batch.
        results = await asyncio.gather(
            store.engine.transact(fail()), store.engine.transact(succeed()), return_exceptions=True
        )
    assert isinstance(results[0], LookupError)
    with require_stamped(stamps), pytest.raises(LookupError):
        await store.engine.transact(fail())


async def test_a_change_does_not_get_a_stamp_of_its_own_after_another_one(store: Stores, engine: str) -> None:
    stamps = get_stamps(store)
    changes = [SlotChange(find_config_slot(*KEY), stamps.words[find_config_slot(*KEY)]) for _ in range(2)]
    for number, change in enumerate(changes, 1):
        await store.configs.append(
            build_version(number, key=KEY), audit=AUDIT, idempotency=None, epoch=store.epoch.value, change=change
        )
    # SQLite commits in one order, so the second is the latest. On PostgreSQL its stamp from before is outdated.
    assert (changes[1].own_stamp is None) == (engine == "postgresql")


async def test_batched_appends_stamp_each_of_their_slots(store: Stores) -> None:
    keys = [ConfigKey("acme", f"type-{number}") for number in range(20)]
    with require_stamped(get_stamps(store), *(find_config_slot(*key) for key in keys)):
        assert all(await asyncio.gather(*(append(store, build_version(1, key=key)) for key in keys)))


async def test_each_kind_of_change_stamps_what_it_covers(app: RunningApp) -> None:
    stamps = get_stamps(app.process.stores)
    token = await app.create_token("root", *ADMIN)
    other = await app.create_token("other", ("reader", "*", "*"))
    slots = {one: find_token_slot(hash_token(one) or b"") for one in (token, other)}
    config_slot = find_config_slot(*KEY)

    async def call(method: str, path: str, **more: Any) -> Any:
        answer = await app.request(method, path, token=token, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    with require_stamped(stamps, config_slot):
        await app.save(token, {"a": 1})
    with require_stamped(stamps, config_slot):
        await call("DELETE", f"/config?tenant={KEY.tenant}&integration_type={TYPE}")
    with require_stamped(stamps, config_slot):
        await call("POST", "/config/rollback", json={**KEY._asdict(), "version": 1})
    with require_stamped(stamps, find_type_slot(TYPE)):
        await call("PUT", f"/integration-types/{TYPE}", json={"schema": {"type": "object"}})
    with require_stamped(stamps, find_type_slot(TYPE)):
        await call("DELETE", f"/integration-types/{TYPE}")
    with require_stamped(stamps, EVERYTHING):
        await call("DELETE", f"/tenants/{KEY.tenant}?confirm={KEY.tenant}")
    with require_stamped(stamps, slots[other]):
        await call("PATCH", "/users/other", json={"grants": []})
    with require_stamped(stamps, slots[other]):
        await call("DELETE", "/users/other")
    with require_stamped(stamps, slots[token]):
        await call("POST", "/logout")


async def test_an_answer_that_confirms_a_version_stamps_first_on_postgresql(app: RunningApp, engine: str) -> None:
    """The worker that committed the version may have died before its stamp. On SQLite its mark remains."""
    stamps = get_stamps(app.process.stores)
    token = await app.create_token("root", *ADMIN)
    config = f"/config?tenant={KEY.tenant}&integration_type={TYPE}"
    document = {**KEY._asdict(), "configuration": {"a": 1}}
    schema = {"schema": {"type": "object"}}
    await app.request("PUT", f"/integration-types/{TYPE}", token=token, json=schema)
    await app.request("POST", "/config", token=token, json=document, headers={"Idempotency-Key": "k"})
    config_slot, type_slot = find_config_slot(*KEY), find_type_slot(TYPE)
    wrong = {"If-Match": '"77"'}
    calls: list[tuple[int, int, str, str, dict[str, Any]]] = [
        (config_slot, 200, "POST", "/config", {"json": document}),
        (config_slot, 200, "POST", "/config", {"json": document, "headers": {"Idempotency-Key": "k"}}),
        (config_slot, 200, "POST", "/config?dry_run=true", {"json": document}),
        (config_slot, 412, "POST", "/config", {"json": document, "headers": wrong}),
        (config_slot, 412, "POST", "/config?dry_run=true", {"json": document, "headers": wrong}),
        (config_slot, 412, "DELETE", config, {"headers": wrong}),
        (type_slot, 200, "PUT", f"/integration-types/{TYPE}", {"json": schema}),
        (type_slot, 412, "PUT", f"/integration-types/{TYPE}", {"json": schema, "headers": wrong}),
        (type_slot, 412, "DELETE", f"/integration-types/{TYPE}", {"headers": wrong}),
    ]
    for slot, status, method, path, more in calls:
        with require_stamped(stamps, *([slot] if engine == "postgresql" else [])):
            answer = await app.request(method, path, token=token, **more)
            assert answer.status_code == status, f"{method} {path}: {answer.text}"
    await app.request("DELETE", config, token=token)
    await app.request("DELETE", f"/integration-types/{TYPE}", token=token)
    for slot, path in [(config_slot, config), (type_slot, f"/integration-types/{TYPE}")]:
        with require_stamped(stamps, *([slot] if engine == "postgresql" else [])):
            assert (await app.request("DELETE", path, token=token)).status_code == 404


async def test_a_save_whose_outcome_is_unknown_stamps_its_slot(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    proxy = Proxy(postgres.port, host=postgres.host)
    await proxy.start()
    settings = Settings(database=postgres.build_proxied_url(url, proxy.port), unsafe_durability=True)
    try:
        store = await open_store(settings)
        assert await append(store, build_version(1, key=KEY))
        proxy.stall()
        set_deadline(asyncio.get_running_loop().time() + 0.5)
        with require_stamped(get_stamps(store), find_config_slot(*KEY)), pytest.raises(DatabaseUnavailable):
            await append(store, build_version(2, key=KEY))
        await store.close()
    finally:
        await proxy.stop()


class LosingConnection:
    """A connection of the driver that is lost while the server runs a statement or commits."""

    async def fetch(self, *_: object, **__: object) -> list[Any]:
        raise ConnectionResetError

    def transaction(self) -> LosingConnection:
        return self

    async def start(self) -> None: ...

    async def commit(self) -> None:
        raise ConnectionResetError


async def test_a_connection_that_is_lost_during_a_commit_leaves_no_old_stamp() -> None:
    connection: Any = LosingConnection()
    stamps = Stamps([0] * 16)
    change = SlotChange(9, stamps.words[9])

    def work() -> Any:
        yield change

    with require_stamped(stamps, 9), pytest.raises(ConnectionResetError):
        await fetch_and_stamp(NO_IO_LOG, connection, SELECT, (), stamps=stamps, changes=[change])
    with require_stamped(stamps, 9), pytest.raises(ConnectionResetError):
        await run_transaction(NO_IO_LOG, connection, work(), stamps=stamps)
    assert change.own_stamp is None
