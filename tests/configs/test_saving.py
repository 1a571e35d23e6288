"""Saves wait for the lock of their config, try again after a lost race, and survive the destruction of a data key."""

from __future__ import annotations

from typing import Any

import pytest

from confide.configs.errors import Superseded, TooManyRaces
from confide.configs.model import ConfigDraft, Deletion, Outcome
from confide.configs.save_queue import SaveQueue
from confide.errors import NotFound
from confide.identity.model import Principal
from confide.names import ConfigKey
from confide.preconditions import Precondition
from support.app import ADMIN, RunningApp

KEY = ConfigKey("acme", "crm")
NO_PRECONDITION = Precondition()


def build_draft(configuration: Any, key: ConfigKey = KEY) -> ConfigDraft:
    return ConfigDraft(key, configuration, "merge")


@pytest.fixture
async def admin(sqlite_app: RunningApp) -> Principal:
    return await sqlite_app.load_principal("root", *ADMIN)


async def test_only_a_process_with_a_competitor_backs_off(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = SaveQueue()
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("confide.configs.save_queue.asyncio.sleep", sleep)
    for version in (1, 2, 3):
        await queue.back_off()
        queue.record_turn(version, seconds=0.01, races_lost=0)
    assert pauses == []
    queue.record_turn(5, seconds=0.01, races_lost=0)  # another process saved version 4
    await queue.back_off()
    assert len(pauses) == 1
    assert 0 <= pauses[0] <= 0.02


async def test_a_save_that_loses_64_races_fails_and_stores_nothing(
    sqlite_app: RunningApp, admin: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, store = sqlite_app.process.configs.writer, sqlite_app.process.stores.configs
    attempts = 0

    async def lose_race(*_: Any, **__: Any) -> None:
        nonlocal attempts
        attempts += 1
        raise Superseded

    with monkeypatch.context() as patched:
        patched.setattr(store, "append", lose_race)
        with pytest.raises(TooManyRaces):
            await writer.save(build_draft({"a": 1}), principal=admin, precondition=NO_PRECONDITION)
    assert attempts == 64
    with pytest.raises(NotFound):
        await sqlite_app.read_configuration(KEY, principal=admin)
    saved = await writer.save(build_draft({"a": 1}), principal=admin, precondition=NO_PRECONDITION)
    assert (saved.version, saved.outcome) == (1, Outcome.CREATED)


async def test_a_save_that_loses_a_race_merges_into_the_version_that_won(
    sqlite_app: RunningApp, admin: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, store = sqlite_app.process.configs.writer, sqlite_app.process.stores.configs
    read = store.read_with_data_key
    rival_drafts = [build_draft({"rival": 1})]

    async def read_then_lose_race(key: ConfigKey) -> Any:
        found = await read(key)
        if rival_drafts:
            rival_draft = rival_drafts.pop()
            await other_writer.save(rival_draft, principal=admin, precondition=NO_PRECONDITION)
        return found

    other_writer = type(writer)(
        store,
        sqlite_app.process.encryption,
        access=writer._access,
        recorder=writer._recorder,
        decrypter=writer._decrypter,
        cache=writer._cache,
        types=writer._plans._types,
        change_feed=writer._change_feed,
        epoch=writer._epoch,
        scheduler=writer._scheduler,
        clock=writer._clock,
    )
    monkeypatch.setattr(store, "read_with_data_key", read_then_lose_race)
    saved = await writer.save(build_draft({"mine": 1}), principal=admin, precondition=NO_PRECONDITION)
    assert saved.version == 2
    assert await sqlite_app.read_configuration(KEY, principal=admin) == {"rival": 1, "mine": 1}


async def test_a_save_whose_data_key_is_destroyed_starts_again_with_a_new_one(
    sqlite_app: RunningApp, admin: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, store = sqlite_app.process.configs.writer, sqlite_app.process.stores.configs
    await writer.save(build_draft({"a": 1}), principal=admin, precondition=NO_PRECONDITION)
    read = store.read_with_data_key
    has_to_destroy = [True]

    async def read_then_destroy_tenant(key: ConfigKey) -> Any:
        found = await read(key)
        if has_to_destroy.pop() if has_to_destroy else False:
            await sqlite_app.process.configs.tenants.destroy("acme", principal=admin)
        return found

    monkeypatch.setattr(store, "read_with_data_key", read_then_destroy_tenant)
    saved = await writer.save(build_draft({"b": 1}), principal=admin, precondition=NO_PRECONDITION)
    assert (saved.version, saved.outcome) == (3, Outcome.CREATED)
    assert await sqlite_app.read_configuration(KEY, principal=admin) == {"b": 1}


async def test_every_version_has_an_audit_entry_with_a_mac_and_a_digest_of_the_configuration(
    sqlite_app: RunningApp, admin: Principal
) -> None:
    writer, encryption = sqlite_app.process.configs.writer, sqlite_app.process.encryption
    await writer.save(build_draft({"a": 1}), principal=admin, precondition=NO_PRECONDITION)
    await writer.delete(Deletion(KEY), principal=admin, precondition=NO_PRECONDITION)
    rows = [row async for table, row in sqlite_app.process.stores.database.dump() if table == "audit"]
    saved, deleted = [row for row in rows if row[2] in ("save", "retire")]
    assert (saved[2], saved[3], saved[4], saved[10]) == ("save", "created", admin.user_id, 1)
    # A format and a length precede the digest, and the origin of the entry follows it.
    assert saved[12][:34] == b"\x02\x20" + encryption.compute_mac("audit", b'{"a":1}')
    assert (deleted[3], deleted[10], deleted[12][:2]) == ("retired", 2, b"\x02\x00")
    assert len(saved[13]) == len(deleted[13]) == 32
    assert saved[13] != deleted[13]
