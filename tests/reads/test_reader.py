"""Reads: from memory where it is proven, from the store otherwise, marked where neither can be had."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from confide.clock import boottime
from confide.errors import DatabaseUnavailable, NotFound
from confide.identity.errors import InvalidToken
from confide.identity.model import Credential, Principal
from confide.names import Key
from confide.reads import reader as reading_module
from confide.reads.model import CurrentConfig, Rendering
from confide.reads.reader import CachedRead, ConfigReader
from confide.reads.request import FORCE_REVALIDATION, ReadRequest
from support.app import ADMIN, RunningApp

KEY = Key("acme", "crm")


class Desk:
    """An app whose store can be counted, slowed down and taken away."""

    def __init__(self, app: RunningApp, root: Principal, token: str) -> None:
        self.app = app
        self.root = root
        self.token = token
        self.asked = 0
        self.is_database_unavailable = False
        self.slow_seconds = 0.0
        store: Any = app.process.stores
        self._reads = store.configs.read_with_key, store.tokens.read
        store.configs.read_with_key = lambda key: self._answer(self._reads[0], key)
        store.tokens.read = lambda hashed: self._answer(self._reads[1], hashed)

    @property
    def reading(self) -> ConfigReader:
        return self.app.process.reads.reader

    async def read(self, key: Key = KEY, **more: Any) -> Any:
        return await self.reading.read(key, principal=self.root, **more)

    def end_lease(self) -> None:
        """Nothing is heard any more, and what was heard is a while ago."""
        self.app.process.caching.lease.renew(boottime() - 5)

    async def _answer(self, ask: Any, about: Any) -> Any:
        self.asked += 1
        await asyncio.sleep(self.slow_seconds)
        if self.is_database_unavailable:
            raise DatabaseUnavailable
        return await ask(about)


@pytest.fixture
async def desk(sqlite_app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(reading_module, "STALE_AFTER_SECONDS", 0.1)
    token = await sqlite_app.token("root", *ADMIN)
    root = await sqlite_app.process.identity.tokens.authenticate(token)
    await sqlite_app.save(token, {"a": 1}, type_="crm")
    # No listening beside the test: each test says itself what is heard.
    read_changes = sqlite_app.process.changes.subscriber.read_changes
    await read_changes()

    async def read_nothing() -> bool:
        return True

    monkeypatch.setattr(sqlite_app.process.changes.subscriber, "read_changes", read_nothing)
    sqlite_app.process.caching.lease.renew(boottime() + 3_600)
    return Desk(sqlite_app, root, token)


async def test_what_was_saved_here_is_read_from_memory_at_once(desk: Desk) -> None:
    found = await desk.read()
    assert (found.response.version, found.stale_seconds, desk.asked) == (1, None, 0)


async def test_many_callers_of_one_missing_key_share_one_question(desk: Desk) -> None:
    desk.app.process.changes.subscriber.clear_caches()
    desk.slow_seconds = 0.05
    found = await asyncio.gather(*(desk.read() for _ in range(50)))
    assert {one.response.version for one in found} == {1}
    assert desk.asked == 1


async def test_a_caller_who_goes_away_takes_nobody_elses_answer_along(desk: Desk) -> None:
    desk.app.process.changes.subscriber.clear_caches()
    desk.slow_seconds = 0.05
    first, second = (asyncio.create_task(desk.read()) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).response.version == 1
    assert desk.asked == 1


async def test_who_demands_the_store_shares_no_question_that_was_sent_before(desk: Desk) -> None:
    desk.app.process.changes.subscriber.clear_caches()
    desk.slow_seconds = 0.05
    await asyncio.gather(
        desk.read(), desk.read(min_version=FORCE_REVALIDATION), desk.read(min_version=FORCE_REVALIDATION)
    )
    assert desk.asked == 3


async def test_a_version_that_is_not_held_is_asked_for(desk: Desk) -> None:
    assert (await desk.read(min_version=1)).response.version == 1
    assert desk.asked == 0
    assert (await desk.read(min_version=2)).response.version == 1
    assert desk.asked > 0


async def test_a_missing_key_is_asked_for_once_and_found_when_it_is_saved(desk: Desk) -> None:
    nothing = Key("acme", "nothing")
    for _ in range(3):
        with pytest.raises(NotFound):
            await desk.read(nothing)
    assert desk.asked == 1
    await desk.app.save(desk.token, {"b": 1}, type_="nothing")
    assert (await desk.read(nothing)).response.version == 1


async def test_when_the_lease_has_ended_each_read_goes_to_the_store(desk: Desk) -> None:
    desk.end_lease()
    for number in range(1, 4):
        assert (await desk.read()).stale_seconds is None
        assert desk.asked == number


async def test_what_is_held_is_given_marked_if_the_store_does_not_answer(desk: Desk) -> None:
    desk.end_lease()
    desk.is_database_unavailable = True
    found = await desk.read()
    assert (found.response.version, found.stale_seconds) == (1, 5)
    desk.is_database_unavailable, desk.slow_seconds = False, 60.0
    found = await asyncio.wait_for(desk.read(), 10)
    assert (found.response.version, found.stale_seconds) == (1, 5)


async def test_what_may_not_be_given_unproven_is_refused(desk: Desk) -> None:
    desk.end_lease()
    desk.is_database_unavailable = True
    with pytest.raises(DatabaseUnavailable):
        await desk.read(Key("acme", "never-read"))
    with pytest.raises(DatabaseUnavailable):
        await desk.read(min_version=FORCE_REVALIDATION)
    with pytest.raises(DatabaseUnavailable):
        await desk.read(min_version=2)
    desk.app.process.reads.cache.observe_version(KEY, 2, is_deleted=True)
    with pytest.raises(DatabaseUnavailable):  # it is known to be gone
        await desk.read()


async def test_what_is_known_to_be_overtaken_stands_in_only_while_the_store_is_away(desk: Desk) -> None:
    desk.app.process.reads.cache.observe_version(KEY, 2)
    desk.is_database_unavailable = True
    found = await desk.read()
    assert (found.response.version, found.stale_seconds) == (1, 1)
    with pytest.raises(DatabaseUnavailable):
        await desk.read(min_version=2)
    # It counts from when it was last proven, not from the lease, which may hold all the time.
    entry = desk.app.process.reads.cache.find(KEY, now=boottime())
    assert entry is not None
    entry.superseded_at = boottime() - 7
    assert (await desk.read()).stale_seconds == 7
    desk.reading._stale_seconds = 4
    with pytest.raises(DatabaseUnavailable):
        await desk.read()
    desk.is_database_unavailable = False
    assert (await desk.read()).stale_seconds is None


async def test_after_the_stale_window_nothing_is_given(desk: Desk) -> None:
    desk.reading._stale_seconds = 4
    desk.end_lease()
    desk.is_database_unavailable = True
    assert desk.reading.is_past_stale_limit()
    with pytest.raises(DatabaseUnavailable):
        await desk.read()
    with pytest.raises(DatabaseUnavailable):
        await desk.reading.authenticate(
            desk.app.process.identity.authenticator._by_token_id[desk.root.token_id].credential
        )


async def test_a_token_that_was_known_goes_on_reading_while_the_store_is_away(desk: Desk) -> None:
    checked = desk.app.process.identity.authenticator._by_token_id[desk.root.token_id]
    desk.end_lease()
    desk.is_database_unavailable = True
    assert await desk.reading.authenticate(checked.credential) == (checked.principal, True)
    checked.expires_at = boottime()
    with pytest.raises(DatabaseUnavailable):
        await desk.reading.authenticate(checked.credential)


async def test_time_ends_an_entry_only_while_the_store_answers(desk: Desk) -> None:
    entry = desk.app.process.reads.cache.find_fresh(KEY, now=boottime())
    assert entry is not None
    entry.fresh_until = boottime()
    desk.is_database_unavailable = True
    found = await desk.read()  # proven by the lease: nothing newer was heard of
    assert (found.response.version, found.stale_seconds) == (1, None)
    desk.is_database_unavailable = False
    await desk.read()
    assert entry.fresh_until > boottime()


async def test_a_token_looked_up_while_something_was_heard_of_it_is_looked_up_again(desk: Desk) -> None:
    authenticator = desk.app.process.identity.authenticator
    credential = authenticator._by_token_id[desk.root.token_id].credential
    desk.app.process.changes.subscriber.clear_caches()
    desk.slow_seconds = 0.05
    looking = asyncio.create_task(authenticator.authenticate(credential))
    await asyncio.sleep(0.01)
    authenticator.forget_user(desk.root.user_id)
    assert (await looking).principal == desk.root
    assert desk.asked == 2


async def test_a_token_of_nobody_is_remembered_by_nobody(desk: Desk) -> None:
    for _ in range(2):
        with pytest.raises(InvalidToken):
            await desk.app.process.identity.authenticator.authenticate(Credential(b"x" * 32))
    assert desk.asked == 2


async def test_what_is_heard_while_the_store_is_asked_in_vain_counts(desk: Desk) -> None:
    desk.end_lease()
    desk.slow_seconds = 1.0
    reading = asyncio.create_task(desk.read())
    asking = asyncio.create_task(
        desk.reading.authenticate(desk.app.process.identity.authenticator._by_token_id[desk.root.token_id].credential)
    )
    await asyncio.sleep(0.02)
    # The news is back before the answer: the config and the token are gone.
    desk.app.process.reads.cache.observe_version(KEY, 2, is_deleted=True)
    desk.app.process.identity.authenticator.forget_token(desk.root.token_id)
    desk.app.process.caching.lease.renew(boottime())
    with pytest.raises(DatabaseUnavailable):
        await reading
    with pytest.raises(DatabaseUnavailable):
        await asking


async def test_a_floor_is_read_through_to_even_if_a_shared_question_found_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Key("acme", "late")
    store: Any = desk.app.process.stores.configs
    answers: list[Any] = [None]
    read = store.read
    store.read = lambda key: asyncio.sleep(0.1, answers.pop()) if answers else read(key)
    first = asyncio.create_task(desk.read(late))
    await asyncio.sleep(0.01)
    # As if another process had saved it, of which nothing was heard yet.
    monkeypatch.setattr(desk.app.process.reads.cache, "observe_version", lambda *_: None)
    await desk.app.save(desk.token, {"c": 1}, type_="late")
    desk.app.process.caching.memory.drop(late)
    assert (await desk.read(late, min_version=1)).response.version == 1
    with pytest.raises(NotFound):
        await first


async def test_what_a_save_learns_of_the_version_a_read_knows(desk: Desk) -> None:
    """A retry that is answered with version 2 is not followed by a read of version 1."""
    headers = {"Idempotency-Key": "k"}
    saved = await desk.app.save(desk.token, {"a": 2}, type_="crm", headers=headers)
    cache = desk.app.process.reads.cache
    # As if another process had saved it: memory holds the version before.
    desk.app.process.caching.memory.drop(KEY)
    entry = cache.find_fresh(KEY, now=boottime())
    assert entry is None
    with cache.begin_update(KEY) as update:
        cache.complete_update(update, KEY, CurrentConfig(1, b'{"a":1}'), rendering=Rendering.READABLE)
    replayed = await desk.app.save(desk.token, {"a": 2}, type_="crm", headers=headers)
    assert (saved.json()["version"], replayed.json()["version"]) == (2, 2)
    assert replayed.headers["idempotency-replayed"] == "true"
    assert (await desk.read()).response.version == 2


async def test_a_validated_response_is_released_when_the_next_period_starts(desk: Desk) -> None:
    checked = desk.app.process.identity.authenticator._by_token_id[desk.root.token_id]
    read = CachedRead(ReadRequest(checked.credential, KEY))
    response = desk.reading.read_cached(read, now=boottime())
    assert response is not None
    assert read.response is response
    assert desk.reading.read_cached(read, now=boottime()) is response
    taken = desk.reading.take_counts()
    assert (taken.hits, taken.sent_bytes) == (2, 2 * response.length)
    assert read.response is None
    assert desk.reading.read_cached(read, now=boottime()) is response


async def test_a_cached_read_decides_not_modified_and_counts_it(desk: Desk) -> None:
    checked = desk.app.process.identity.authenticator._by_token_id[desk.root.token_id]
    read = CachedRead(ReadRequest(checked.credential, KEY, known_tags='"1"'))
    for _ in range(2):
        response = desk.reading.read_cached(read, now=boottime())
        assert response is not None
        assert (response.status, response.body) == (304, b"")
    taken = desk.reading.take_counts()
    assert (taken.hits, taken.not_modified, taken.sent_bytes) == (2, 2, 0)


async def test_every_nth_cached_read_is_sampled_once(desk: Desk) -> None:
    checked = desk.app.process.identity.authenticator._by_token_id[desk.root.token_id]
    read = CachedRead(ReadRequest(checked.credential, KEY))
    desk.reading._sample = desk.reading._until_sample = 2
    samples = []
    for _ in range(4):
        desk.reading.read_cached(read, now=boottime())
        samples.append(desk.reading.take_sample())
    assert [sample is not None for sample in samples] == [False, True, False, True]
    assert samples[1] is not None
    assert (samples[1].user_id, samples[1].status) == (desk.root.user_id, 200)


async def test_what_was_remembered_before_the_first_news_is_forgotten(desk: Desk) -> None:
    listener = desk.app.process.changes.subscriber
    listener._has_read = False
    assert len(desk.app.process.caching.memory) > 0
    await type(listener).read_changes(listener)
    assert len(desk.app.process.caching.memory) == 0


async def test_a_bug_while_hearing_forgets_what_may_not_have_been_heard(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = desk.app.process.changes.subscriber
    await desk.app.save(desk.token, {"a": 3}, type_="crm")

    def fails(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(listener, "_apply", fails)
    assert not await type(listener).read_changes(listener)
    assert len(desk.app.process.caching.memory) == 0
