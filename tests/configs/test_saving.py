"""Waiting in line, losing races, and what a save does when a key ends under it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from confide.configs.errors import TooManyRaces
from confide.configs.model import ConfigDraft, Deletion, Outcome, Superseded
from confide.errors import Busy, NotFound
from confide.identity.model import Principal
from confide.keyed_lock import KeyedLock
from confide.names import Key
from confide.preconditions import Precondition
from support.app import ADMIN, RunningApp

KEY = Key("acme", "crm")
NO_PRECONDITION = Precondition()


def draft(configuration: Any, key: Key = KEY) -> ConfigDraft:
    return ConfigDraft(key, configuration, "merge")


@pytest.fixture
async def root(sqlite_app: RunningApp) -> Principal:
    return await sqlite_app.principal("root", *ADMIN)


async def test_acts_on_one_thing_go_one_after_the_other_and_on_others_at_once() -> None:
    lines: KeyedLock[str] = KeyedLock(max_queued=10)
    under_way: dict[str, int] = {"a": 0, "b": 0}
    most = {"a": 0, "b": 0}

    async def act(name: str) -> None:
        async with lines.acquire(name):
            under_way[name] += 1
            most[name] = max(most[name], under_way[name])
            await asyncio.sleep(0.001)
            assert under_way["a"] + under_way["b"] <= 2
            under_way[name] -= 1

    await asyncio.gather(*(act(name) for name in "abababab"))
    assert most == {"a": 1, "b": 1}
    assert lines._queues == {}


async def test_a_line_that_is_too_long_is_refused_at_once_and_is_not_kept() -> None:
    lines: KeyedLock[str] = KeyedLock(max_queued=2)

    async def act() -> None:
        async with lines.acquire("a"):
            await asyncio.sleep(0.01)

    results = await asyncio.gather(*(act() for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 3
    assert lines._queues == {}


async def test_somebody_who_gives_up_in_line_holds_up_nobody() -> None:
    lines: KeyedLock[str] = KeyedLock(max_queued=10)

    async def act() -> str:
        async with lines.acquire("a"):
            await asyncio.sleep(0.01)
            return "done"

    tasks = [asyncio.create_task(act()) for _ in range(4)]
    await asyncio.sleep(0.001)
    tasks[0].cancel()
    tasks[2].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result == "done" for result in results] == [False, True, False, True]
    assert lines._queues == {}


async def test_only_who_has_met_a_rival_yields(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: KeyedLock[str] = KeyedLock(max_queued=10)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("confide.keyed_lock.asyncio.sleep", sleep)
    async with lines.acquire("a") as line:
        for version in (1, 2, 3):
            await line.back_off()
            line.record_turn(version, seconds=0.01, races_lost=0)
        assert pauses == []
        line.record_turn(5, seconds=0.01, races_lost=0)  # somebody else made version 4
        await line.back_off()
        assert len(pauses) == 1
        assert 0 <= pauses[0] <= 0.02


async def test_after_64_lost_races_a_save_is_refused_and_nothing_is_stored(
    sqlite_app: RunningApp, root: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, store = sqlite_app.process.configs.writer, sqlite_app.process.stores.configs
    tries = 0

    async def lost(*_: Any, **__: Any) -> None:
        nonlocal tries
        tries += 1
        raise Superseded

    with monkeypatch.context() as patched:
        patched.setattr(store, "append", lost)
        with pytest.raises(TooManyRaces):
            await configs.save(draft({"a": 1}), principal=root, precondition=NO_PRECONDITION)
    assert tries == 64
    with pytest.raises(NotFound):
        await sqlite_app.configuration(KEY, principal=root)
    saved = await configs.save(draft({"a": 1}), principal=root, precondition=NO_PRECONDITION)
    assert (saved.version, saved.outcome) == (1, Outcome.CREATED)


async def test_a_save_that_loses_a_race_merges_again_into_what_won(
    sqlite_app: RunningApp, root: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, store = sqlite_app.process.configs.writer, sqlite_app.process.stores.configs
    read = store.read_with_key
    rivals = [draft({"rival": 1})]

    async def overtaken(key: Key) -> Any:
        found = await read(key)
        if rivals:
            rival = rivals.pop()
            await other.save(rival, principal=root, precondition=NO_PRECONDITION)
        return found

    other = type(configs)(
        store,
        sqlite_app.process.encryption,
        access=configs._access,
        recorder=configs._recorder,
        decrypter=configs._decrypter,
        cache=configs._cache,
        types=configs._plans._types,
        change_feed=configs._change_feed,
        clock=configs._clock,
    )
    monkeypatch.setattr(store, "read_with_key", overtaken)
    saved = await configs.save(draft({"mine": 1}), principal=root, precondition=NO_PRECONDITION)
    assert saved.version == 2
    assert await sqlite_app.configuration(KEY, principal=root) == {"rival": 1, "mine": 1}


async def test_a_save_whose_key_was_destroyed_meanwhile_begins_again_under_a_new_one(
    sqlite_app: RunningApp, root: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, store = sqlite_app.process.configs.writer, sqlite_app.process.stores.configs
    await configs.save(draft({"a": 1}), principal=root, precondition=NO_PRECONDITION)
    read = store.read_with_key
    ends = [True]

    async def ended(key: Key) -> Any:
        found = await read(key)
        if ends.pop() if ends else False:
            await sqlite_app.process.configs.tenants.destroy("acme", principal=root)
        return found

    monkeypatch.setattr(store, "read_with_key", ended)
    saved = await configs.save(draft({"b": 1}), principal=root, precondition=NO_PRECONDITION)
    assert (saved.version, saved.outcome) == (3, Outcome.CREATED)
    assert await sqlite_app.configuration(KEY, principal=root) == {"b": 1}


async def test_every_version_has_its_audit_entry_with_a_mac_and_a_digest_of_what_was_opened(
    sqlite_app: RunningApp, root: Principal
) -> None:
    configs, keys = sqlite_app.process.configs.writer, sqlite_app.process.encryption
    await configs.save(draft({"a": 1}), principal=root, precondition=NO_PRECONDITION)
    await configs.delete(Deletion(KEY), principal=root, precondition=NO_PRECONDITION)
    rows = [row async for table, row in sqlite_app.process.stores.database.dump() if table == "audit"]
    saved, retired = [row for row in rows if row[2] in ("save", "retire")]
    assert (saved[2], saved[3], saved[4], saved[10]) == ("save", "created", root.user_id, 1)
    assert saved[12] == keys.compute_mac("audit", b'{"a":1}')
    assert (retired[3], retired[10], retired[12]) == ("retired", 2, None)
    assert len(saved[13]) == len(retired[13]) == 32
    assert saved[13] != retired[13]
