"""Reads come from the cache while it is fresh, else from the database, else stale from the cache."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from confide.caching.stamps import EVERYTHING, SlotChange, find_config_slot, find_token_slot, find_type_slot
from confide.clock import read_boot_clock
from confide.errors import DatabaseUnavailable, NotFound
from confide.identity.errors import InvalidToken
from confide.identity.model import Credential, Principal
from confide.integration_types.compiled import UNTYPED
from confide.names import ConfigKey
from confide.reads import reader as reader_module
from confide.reads.model import CurrentConfig, Rendering
from confide.reads.plain_read import FORCE_REVALIDATION, ReadRequest
from confide.reads.reader import CachedRequest, ConfigReader
from support.app import ADMIN, RunningApp
from support.rows import build_version

KEY = ConfigKey("acme", "crm")


class ControlledApp:
    """An app whose database queries are counted and can be slowed down or fail."""

    def __init__(self, app: RunningApp, root: Principal, token: str) -> None:
        self.app = app
        self.root = root
        self.token = token
        self.queries = 0
        self.is_database_unavailable = False
        self.slow_seconds = 0.0
        stores: Any = app.process.stores
        self._reads = stores.configs.read_with_data_key, stores.tokens.read
        stores.configs.read_with_data_key = lambda key: self._query(self._reads[0], key)
        stores.tokens.read = lambda credential: self._query(self._reads[1], credential)

    @property
    def reader(self) -> ConfigReader:
        return self.app.process.reads.reader

    async def read(self, key: ConfigKey = KEY, **more: Any) -> Any:
        return await self.reader.read(key, principal=self.root, **more)

    def expire_lease(self) -> None:
        """Act as if the last successful read of the change feed was five seconds ago."""
        self.app.process.caching.lease.renew(read_boot_clock() - 5)

    async def _query(self, query: Any, argument: Any) -> Any:
        self.queries += 1
        await asyncio.sleep(self.slow_seconds)
        if self.is_database_unavailable:
            raise DatabaseUnavailable
        return await query(argument)


@pytest.fixture
async def controlled(sqlite_app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> ControlledApp:
    monkeypatch.setattr(reader_module, "STALE_AFTER_SECONDS", 0.1)
    token = await sqlite_app.create_token("root", *ADMIN)
    root = await sqlite_app.process.identity.tokens.authenticate(token)
    await sqlite_app.save(token, {"a": 1}, type_="crm")
    # Only the tests themselves apply changes.
    read_changes = sqlite_app.process.changes.subscriber.read_changes
    await read_changes()

    async def read_no_changes() -> bool:
        return True

    monkeypatch.setattr(sqlite_app.process.changes.subscriber, "read_changes", read_no_changes)
    sqlite_app.process.caching.lease.renew(read_boot_clock() + 3_600)
    return ControlledApp(sqlite_app, root, token)


async def test_a_config_that_this_process_saved_is_read_from_the_cache(controlled: ControlledApp) -> None:
    result = await controlled.read()
    assert (result.response.version, result.stale_seconds, controlled.queries) == (1, None, 0)


async def test_concurrent_reads_of_a_key_that_is_not_cached_share_one_query(controlled: ControlledApp) -> None:
    controlled.app.process.changes.subscriber.clear_caches()
    controlled.slow_seconds = 0.05
    results = await asyncio.gather(*(controlled.read() for _ in range(50)))
    assert {result.response.version for result in results} == {1}
    assert controlled.queries == 1


async def test_a_cancelled_read_does_not_cancel_the_shared_query(controlled: ControlledApp) -> None:
    controlled.app.process.changes.subscriber.clear_caches()
    controlled.slow_seconds = 0.05
    first, second = (asyncio.create_task(controlled.read()) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).response.version == 1
    assert controlled.queries == 1


async def test_a_forced_revalidation_shares_no_query_that_was_sent_before(controlled: ControlledApp) -> None:
    controlled.app.process.changes.subscriber.clear_caches()
    controlled.slow_seconds = 0.05
    await asyncio.gather(
        controlled.read(),
        controlled.read(min_version=FORCE_REVALIDATION),
        controlled.read(min_version=FORCE_REVALIDATION),
    )
    assert controlled.queries == 3


async def test_a_version_that_is_not_cached_is_queried(controlled: ControlledApp) -> None:
    assert (await controlled.read(min_version=1)).response.version == 1
    assert controlled.queries == 0
    assert (await controlled.read(min_version=2)).response.version == 1
    assert controlled.queries > 0


async def test_a_missing_config_is_queried_once_and_found_after_its_save(controlled: ControlledApp) -> None:
    missing = ConfigKey("acme", "missing")
    for _ in range(3):
        with pytest.raises(NotFound):
            await controlled.read(missing)
    assert controlled.queries == 1
    await controlled.app.save(controlled.token, {"b": 1}, type_="missing")
    assert (await controlled.read(missing)).response.version == 1


async def test_after_the_lease_expires_each_read_queries_the_database(controlled: ControlledApp) -> None:
    controlled.expire_lease()
    for number in range(1, 4):
        assert (await controlled.read()).stale_seconds is None
        assert controlled.queries == number


async def test_a_stale_response_is_served_if_the_database_does_not_respond(controlled: ControlledApp) -> None:
    controlled.expire_lease()
    controlled.is_database_unavailable = True
    result = await controlled.read()
    assert (result.response.version, result.stale_seconds) == (1, 5)
    controlled.is_database_unavailable, controlled.slow_seconds = False, 60.0
    result = await asyncio.wait_for(controlled.read(), 10)
    assert (result.response.version, result.stale_seconds) == (1, 5)


async def test_a_read_fails_if_no_stale_response_may_be_served(controlled: ControlledApp) -> None:
    controlled.expire_lease()
    controlled.is_database_unavailable = True
    with pytest.raises(DatabaseUnavailable):
        await controlled.read(ConfigKey("acme", "never-read"))
    with pytest.raises(DatabaseUnavailable):
        await controlled.read(min_version=FORCE_REVALIDATION)
    with pytest.raises(DatabaseUnavailable):
        await controlled.read(min_version=2)
    controlled.app.process.reads.cache.observe_version(KEY, 2, is_deleted=True)
    with pytest.raises(DatabaseUnavailable):  # the config is known to be deleted
        await controlled.read()


async def test_a_superseded_entry_is_served_as_stale_only_while_the_database_is_unavailable(
    controlled: ControlledApp,
) -> None:
    controlled.app.process.reads.cache.observe_version(KEY, 2)
    controlled.is_database_unavailable = True
    result = await controlled.read()
    assert (result.response.version, result.stale_seconds) == (1, 1)
    with pytest.raises(DatabaseUnavailable):
        await controlled.read(min_version=2)
    # Its age counts from when it was last known to be current. The lease may be valid all the time.
    entry = controlled.app.process.reads.cache.find(KEY, now=read_boot_clock())
    assert entry is not None
    entry.superseded_at = read_boot_clock() - 7
    assert (await controlled.read()).stale_seconds == 7
    controlled.reader._max_stale_seconds = 4
    with pytest.raises(DatabaseUnavailable):
        await controlled.read()
    controlled.is_database_unavailable = False
    assert (await controlled.read()).stale_seconds is None


def stamp(controlled: ControlledApp, *slots: int) -> None:
    """Act as another process of this machine that changed what these slots cover."""
    controlled.app.process.stores.stamp_file.stamps.stamp_unlocked([SlotChange(slot) for slot in slots])


async def test_a_new_stamp_of_another_process_ends_a_cached_response(controlled: ControlledApp) -> None:
    token = controlled.app.process.identity.authenticator._by_token_id[controlled.root.token_id]
    cached = CachedRequest(ReadRequest(token.credential, KEY))
    slots = [
        find_config_slot(*KEY),
        find_type_slot(KEY.integration_type),
        find_token_slot(token.credential),
        EVERYTHING,
    ]
    for number, slot in enumerate(slots):
        assert controlled.reader.read_cached(cached, now=read_boot_clock()) is not None
        stamp(controlled, slot)
        assert controlled.reader.read_cached(cached, now=read_boot_clock()) is None, number
        await controlled.reader.authenticate(token.credential)
        assert (await controlled.read()).response.version == 1
    assert controlled.reader.read_cached(cached, now=read_boot_clock()) is not None


async def test_a_slot_in_doubt_is_read_from_the_database_and_not_cached(controlled: ControlledApp) -> None:
    stamps = controlled.app.process.stores.stamp_file.stamps
    changes = [SlotChange(find_config_slot(*KEY))]
    stamps.mark_in_doubt(changes)
    for number in range(1, 4):
        assert (await controlled.read()).response.version == 1
        assert controlled.queries == number
    stamps.stamp_marked(changes)
    for _ in range(3):
        await controlled.read()
    assert controlled.queries == 4


async def test_a_read_shares_no_query_that_began_before_a_new_stamp(controlled: ControlledApp) -> None:
    stamp(controlled, find_config_slot(*KEY))
    controlled.slow_seconds = 0.05
    first = asyncio.create_task(controlled.read())
    await asyncio.sleep(0.01)
    stamp(controlled, find_config_slot(*KEY))
    second, third = (asyncio.create_task(controlled.read()) for _ in range(2))
    await asyncio.gather(first, second, third)
    assert controlled.queries == 2


async def test_a_config_that_another_process_changed_before_an_outage_is_served_only_as_stale(
    controlled: ControlledApp,
) -> None:
    stamp(controlled, find_config_slot(*KEY))
    controlled.is_database_unavailable = True
    result = await controlled.read()
    assert (result.response.version, result.stale_seconds) == (1, 1)
    # The new schema may make a visible member secret.
    stamp(controlled, find_type_slot(KEY.integration_type))
    with pytest.raises(DatabaseUnavailable):
        await controlled.read()


async def test_a_token_that_another_process_changed_before_an_outage_is_not_accepted(
    controlled: ControlledApp,
) -> None:
    token = controlled.app.process.identity.authenticator._by_token_id[controlled.root.token_id]
    controlled.is_database_unavailable = True
    assert (await controlled.reader.authenticate(token.credential)).principal == controlled.root
    stamp(controlled, find_token_slot(token.credential))
    with pytest.raises(DatabaseUnavailable):
        await controlled.reader.authenticate(token.credential)


async def test_after_the_stale_limit_nothing_is_served(controlled: ControlledApp) -> None:
    controlled.reader._max_stale_seconds = 4
    controlled.expire_lease()
    controlled.is_database_unavailable = True
    assert controlled.reader.is_past_stale_limit()
    with pytest.raises(DatabaseUnavailable):
        await controlled.read()
    with pytest.raises(DatabaseUnavailable):
        await controlled.reader.authenticate(
            controlled.app.process.identity.authenticator._by_token_id[controlled.root.token_id].credential
        )


async def test_a_cached_token_can_read_while_the_database_is_unavailable(controlled: ControlledApp) -> None:
    token = controlled.app.process.identity.authenticator._by_token_id[controlled.root.token_id]
    controlled.expire_lease()
    controlled.is_database_unavailable = True
    assert await controlled.reader.authenticate(token.credential) == (token.principal, True)
    token.expires_at = read_boot_clock()
    with pytest.raises(DatabaseUnavailable):
        await controlled.reader.authenticate(token.credential)


async def test_the_time_to_live_does_not_end_an_entry_while_the_database_is_unavailable(
    controlled: ControlledApp,
) -> None:
    entry = controlled.app.process.reads.cache.find_fresh(KEY, now=read_boot_clock())
    assert entry is not None
    entry.fresh_until = read_boot_clock()
    controlled.is_database_unavailable = True
    result = await controlled.read()  # fresh by the lease: no newer version is known
    assert (result.response.version, result.stale_seconds) == (1, None)
    controlled.is_database_unavailable = False
    await controlled.read()
    assert entry.fresh_until > read_boot_clock()


async def test_a_token_that_changes_during_its_lookup_is_looked_up_again(controlled: ControlledApp) -> None:
    authenticator = controlled.app.process.identity.authenticator
    credential = authenticator._by_token_id[controlled.root.token_id].credential
    controlled.app.process.changes.subscriber.clear_caches()
    controlled.slow_seconds = 0.05
    lookup = asyncio.create_task(authenticator.authenticate(credential))
    await asyncio.sleep(0.01)
    authenticator.forget_user(controlled.root.user_id)
    assert (await lookup).principal == controlled.root
    assert controlled.queries == 2


async def test_an_unknown_token_is_not_cached(controlled: ControlledApp) -> None:
    for _ in range(2):
        with pytest.raises(InvalidToken):
            await controlled.app.process.identity.authenticator.authenticate(Credential(b"x" * 32))
    assert controlled.queries == 2


async def test_a_change_during_a_failing_query_counts(controlled: ControlledApp) -> None:
    controlled.expire_lease()
    controlled.is_database_unavailable, controlled.slow_seconds = True, 1.0
    read = asyncio.create_task(controlled.read())
    authentication = asyncio.create_task(
        controlled.reader.authenticate(
            controlled.app.process.identity.authenticator._by_token_id[controlled.root.token_id].credential
        )
    )
    await asyncio.sleep(0.02)
    # The change feed recovers before the query fails. It reports that config and token are deleted.
    controlled.app.process.reads.cache.observe_version(KEY, 2, is_deleted=True)
    controlled.app.process.identity.authenticator.forget_token(controlled.root.token_id)
    controlled.app.process.caching.lease.renew(read_boot_clock())
    with pytest.raises(DatabaseUnavailable):
        await read
    with pytest.raises(DatabaseUnavailable):
        await authentication


async def test_a_read_whose_entry_is_dropped_while_it_waits_queries_the_database_again(
    controlled: ControlledApp,
) -> None:
    controlled.expire_lease()
    controlled.slow_seconds = 1.0
    token = controlled.app.process.identity.authenticator._by_token_id[controlled.root.token_id]
    read = asyncio.create_task(controlled.read())
    authentication = asyncio.create_task(controlled.reader.authenticate(token.credential))
    await asyncio.sleep(0.02)
    # The change feed is back, and cannot confirm what is cached. The first queries still wait.
    controlled.slow_seconds = 0.0
    controlled.app.process.changes.subscriber.clear_caches()
    controlled.app.process.caching.lease.renew(read_boot_clock())
    result = await asyncio.wait_for(read, 10)
    assert (result.response.version, result.stale_seconds) == (1, None)
    assert await asyncio.wait_for(authentication, 10) == (controlled.root, False)


async def test_a_minimum_version_is_found_even_if_a_shared_query_found_nothing(
    controlled: ControlledApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = ConfigKey("acme", "late")
    store: Any = controlled.app.process.stores.configs
    results: list[Any] = [None]
    read = store.read
    store.read = lambda key: asyncio.sleep(0.1, results.pop()) if results else read(key)
    first = asyncio.create_task(controlled.read(late))
    await asyncio.sleep(0.01)
    # As if another process had saved it and the change had not arrived yet.
    monkeypatch.setattr(controlled.app.process.reads.cache, "observe_version", lambda *_: None)
    await controlled.app.save(controlled.token, {"c": 1}, type_="late")
    controlled.app.process.caching.memory.drop(late)
    assert (await controlled.read(late, min_version=1)).response.version == 1
    with pytest.raises(NotFound):
        await first


async def test_a_read_after_a_replayed_save_returns_at_least_its_version(controlled: ControlledApp) -> None:
    headers = {"Idempotency-Key": "k"}
    saved = await controlled.app.save(controlled.token, {"a": 2}, type_="crm", headers=headers)
    cache = controlled.app.process.reads.cache
    # As if another process had saved it: the cache has the previous version.
    controlled.app.process.caching.memory.drop(KEY)
    entry = cache.find_fresh(KEY, now=read_boot_clock())
    assert entry is None
    with cache.begin_update(KEY) as pending:
        cache.complete_update(
            pending, KEY, CurrentConfig(build_version(1), b'{"a":1}', UNTYPED), rendering=Rendering.READABLE
        )
    replayed = await controlled.app.save(controlled.token, {"a": 2}, type_="crm", headers=headers)
    assert (saved.json()["version"], replayed.json()["version"]) == (2, 2)
    assert replayed.headers["idempotency-replayed"] == "true"
    assert (await controlled.read()).response.version == 2


async def test_a_validated_response_is_released_when_the_next_period_starts(controlled: ControlledApp) -> None:
    token = controlled.app.process.identity.authenticator._by_token_id[controlled.root.token_id]
    cached = CachedRequest(ReadRequest(token.credential, KEY))
    response = controlled.reader.read_cached(cached, now=read_boot_clock())
    assert response is not None
    assert cached.response is response
    assert controlled.reader.read_cached(cached, now=read_boot_clock()) is response
    counts = controlled.reader.take_counts()
    assert (counts.hits, counts.sent_bytes) == (2, 2 * response.length)
    assert cached.response is None
    assert controlled.reader.read_cached(cached, now=read_boot_clock()) is response


async def test_a_cached_read_decides_not_modified_and_counts_it(controlled: ControlledApp) -> None:
    token = controlled.app.process.identity.authenticator._by_token_id[controlled.root.token_id]
    cached = CachedRequest(ReadRequest(token.credential, KEY, known_tags='"1"'))
    for _ in range(2):
        response = controlled.reader.read_cached(cached, now=read_boot_clock())
        assert response is not None
        assert (response.status, response.body) == (304, b"")
    counts = controlled.reader.take_counts()
    assert (counts.hits, counts.not_modified, counts.sent_bytes) == (2, 2, 0)


async def test_every_nth_cached_read_is_sampled_once(controlled: ControlledApp) -> None:
    token = controlled.app.process.identity.authenticator._by_token_id[controlled.root.token_id]
    cached = CachedRequest(ReadRequest(token.credential, KEY))
    controlled.reader._sample = controlled.reader._until_sample = 2
    samples = []
    for _ in range(4):
        controlled.reader.read_cached(cached, now=read_boot_clock())
        samples.append(controlled.reader.take_sample())
    assert [sample is not None for sample in samples] == [False, True, False, True]
    assert samples[1] is not None
    assert (samples[1].user_id, samples[1].status) == (controlled.root.user_id, 200)


async def test_the_first_read_of_the_change_feed_clears_the_caches(controlled: ControlledApp) -> None:
    subscriber = controlled.app.process.changes.subscriber
    subscriber._has_read = False
    assert len(controlled.app.process.caching.memory) > 0
    await type(subscriber).read_changes(subscriber)
    assert len(controlled.app.process.caching.memory) == 0


async def test_an_unexpected_error_while_applying_changes_clears_the_caches(
    controlled: ControlledApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriber = controlled.app.process.changes.subscriber
    await controlled.app.save(controlled.token, {"a": 3}, type_="crm")

    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(subscriber, "_apply", fail)
    assert not await type(subscriber).read_changes(subscriber)
    assert len(controlled.app.process.caching.memory) == 0
