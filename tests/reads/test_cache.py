"""The cache never goes back a version, whatever order fills, saves, news and evictions come in."""

from __future__ import annotations

import random

import pytest

from confide.caching.lease import Lease
from confide.caching.lru_cache import LruCache
from confide.names import Key
from confide.reads.cache import MISSING_TTL_SECONDS, ConfigCache
from confide.reads.model import CurrentConfig, Rendering
from support.cache_simulation import (
    CacheThatForgetsNewerVersions,
    CacheWithoutLease,
    SimulatedProcess,
    VersionedResponse,
)

KEY = Key("acme", "crm")
PROGRAMS = 1_500
STEPS = 80


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Simulated running time."""
    now = [1_000.0]
    for module in ("reads.cache", "caching.lease", "changes.subscriber", "caching.lru_cache"):
        monkeypatch.setattr(f"confide.{module}.boottime", lambda: now[0])
    return now


@pytest.fixture
def cache(clock: list[float]) -> ConfigCache:
    lease = Lease()
    lease.renew(clock[0])
    return ConfigCache(LruCache(100_000), lease, prepare=VersionedResponse, ttl_seconds=50)  # type: ignore[arg-type]


def complete_update(
    cache: ConfigCache, version: int, *, configuration: bytes | None = b'{"password":"x"}', heard: int = 0
) -> bool:
    with cache.begin_update(KEY) as update:
        if heard:
            cache.observe_version(KEY, heard)
        answers = cache.complete_update(
            update, KEY, CurrentConfig(version, configuration), rendering=Rendering.READABLE
        )
    return answers is not None


def held(cache: ConfigCache, clock: list[float]) -> int | None:
    entry = cache.find_fresh(KEY, now=clock[0])
    return None if entry is None else entry.version


def programs(kind: type[ConfigCache], clock: list[float]) -> list[str]:
    """The first faults that random interleavings find, with their seed."""
    for seed in range(PROGRAMS):
        clock[0] = 1_000.0
        violations = SimulatedProcess(kind, random.Random(seed), clock).run(STEPS)
        if violations:
            return [f"seed {seed}", *violations]
    return []


def test_no_interleaving_gives_an_answer_older_than_the_rule_allows(clock: list[float]) -> None:
    assert programs(ConfigCache, clock) == []


@pytest.mark.parametrize("violation", [CacheThatForgetsNewerVersions, CacheWithoutLease])
def test_a_cache_without_the_guard_or_without_the_lease_fails_the_same_test(
    violation: type[ConfigCache], clock: list[float]
) -> None:
    assert programs(violation, clock) != []


def test_the_interleavings_do_answer_from_memory(clock: list[float]) -> None:
    answered = 0
    for seed in range(100):
        process = SimulatedProcess(ConfigCache, random.Random(seed), clock)
        process.run(STEPS)
        answered += process.answered
    assert answered > 100


def test_a_late_fill_never_replaces_a_newer_version(cache: ConfigCache, clock: list[float]) -> None:
    assert complete_update(cache, 2)
    assert not complete_update(cache, 1)
    assert held(cache, clock) == 2


def test_a_fill_that_was_overtaken_on_the_way_does_not_land(cache: ConfigCache, clock: list[float]) -> None:
    assert not complete_update(cache, 1, heard=2)
    assert held(cache, clock) is None
    assert complete_update(cache, 2, heard=2)
    assert held(cache, clock) == 2


def test_news_of_what_is_held_ends_nothing_and_news_of_a_newer_version_does(
    cache: ConfigCache, clock: list[float]
) -> None:
    complete_update(cache, 2)
    entry = cache.find_fresh(KEY, now=clock[0])
    assert entry is not None
    cache.observe_version(KEY, 2)
    assert held(cache, clock) == 2
    cache.observe_version(KEY, 3)
    assert held(cache, clock) is None
    # Whoever kept hold of it can tell.
    assert entry.is_invalid
    prepared = entry.responses[Rendering.READABLE]
    assert prepared is not None
    assert prepared.is_invalid
    # It may stand in while the store is away, until something takes its place or it is known to be retired.
    assert cache.find(KEY, now=clock[0]) is entry
    assert not complete_update(cache, 2, heard=3)
    assert held(cache, clock) is None
    assert complete_update(cache, 3)
    assert held(cache, clock) == 3
    cache.observe_version(KEY, 4, is_deleted=True)
    assert cache.find(KEY, now=clock[0]) is None
    # In whichever order it is heard.
    complete_update(cache, 5)
    cache.observe_version(KEY, 7)
    assert cache.find(KEY, now=clock[0]) is not None
    cache.observe_version(KEY, 6, is_deleted=True)
    assert cache.find(KEY, now=clock[0]) is None


def test_the_age_of_what_was_overtaken_counts_from_when_it_was_last_proven(
    cache: ConfigCache, clock: list[float]
) -> None:
    complete_update(cache, 1)
    entry = cache.find(KEY, now=clock[0])
    assert entry is not None
    clock[0] += 250.0
    cache.observe_version(KEY, 2)
    cache._lease.renew(clock[0])
    assert cache.stale_seconds(entry) == 250.0
    clock[0] += 5.0
    cache.observe_version(KEY, 3)
    assert cache.stale_seconds(entry) == 255.0


def test_what_is_missing_is_remembered_briefly_and_forgotten_at_the_first_save(
    cache: ConfigCache, clock: list[float]
) -> None:
    assert complete_update(cache, 0, configuration=None)
    entry = cache.find_fresh(KEY, now=clock[0])
    assert entry is not None
    assert entry.is_missing
    cache.observe_version(KEY, 1)
    assert held(cache, clock) is None
    complete_update(cache, 1, configuration=None)
    clock[0] += MISSING_TTL_SECONDS
    cache._lease.renew(clock[0])
    assert held(cache, clock) is None


def test_when_the_lease_has_ended_nothing_is_answered_and_nothing_is_forgotten(
    cache: ConfigCache, clock: list[float]
) -> None:
    complete_update(cache, 1)
    clock[0] += 1.0
    assert held(cache, clock) is None
    entry = cache.find(KEY, now=clock[0])
    assert entry is not None
    assert entry.version == 1
    cache._lease.renew(clock[0])
    assert held(cache, clock) == 1


def test_one_entry_has_an_answer_for_each_rendering_asked_for(cache: ConfigCache, clock: list[float]) -> None:
    complete_update(cache, 1)
    entry = cache.find_fresh(KEY, now=clock[0])
    assert entry is not None
    size = entry.size_bytes
    assert [answer is None for answer in entry.responses] == [False, True, True, True]
    with cache.begin_update(KEY) as update:
        cache.complete_update(update, KEY, CurrentConfig(1, b'{"password":"x"}'), rendering=Rendering.MASKED)
    assert cache.find_fresh(KEY, now=clock[0]) is entry
    assert [answer is None for answer in entry.responses] == [False, False, True, True]
    assert entry.size_bytes > size
    assert cache._memory.bytes == entry.size_bytes
