"""The cache never goes back a version, in any order of database reads, saves, changes and evictions."""

from __future__ import annotations

import random
from typing import Any

import pytest

from confide.caching.lease import Lease
from confide.caching.lru_cache import LruCache
from confide.caching.stamps import WORD_COUNT, Stamps
from confide.epoch import CurrentEpoch
from confide.integration_types.compiled import UNTYPED
from confide.names import ConfigKey
from confide.reads.cache import MISSING_TTL_SECONDS, ConfigCache
from confide.reads.model import CurrentConfig, Rendering
from support.cache_simulation import (
    CacheThatForgetsNewerVersions,
    CacheThatKeepsEverySave,
    CacheWithoutLease,
    CacheWithoutStamps,
    SimulatedProcess,
    VersionedResponse,
)
from support.rows import build_version

KEY = ConfigKey("acme", "crm")
SEEDS = 1_500
STEPS = 80


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Simulated boot time."""
    now = [1_000.0]
    for module in ("reads.cache", "caching.lease", "changes.subscriber", "caching.lru_cache"):
        monkeypatch.setattr(f"confide.{module}.read_boot_clock", lambda: now[0])
    return now


@pytest.fixture
def cache(clock: list[float]) -> ConfigCache:
    lease = Lease()
    lease.renew(clock[0])
    memory: LruCache[Any] = LruCache(100_000)
    prepare: Any = VersionedResponse
    return ConfigCache(memory, lease, Stamps([0] * WORD_COUNT), epoch=CurrentEpoch(), prepare=prepare, ttl_seconds=50)


def update(
    cache: ConfigCache, version: int, *, configuration: bytes | None = b'{"password":"x"}', received: int = 0
) -> bool:
    """Update the cache to a version. Before that, receive a change with the version `received`."""
    with cache.begin_update(KEY) as pending:
        if received:
            cache.observe_version(KEY, received)
        responses = cache.complete_update(
            pending, KEY, CurrentConfig(build_version(version), configuration, UNTYPED), rendering=Rendering.READABLE
        )
    return responses is not None


def find_fresh_version(cache: ConfigCache, clock: list[float]) -> int | None:
    entry = cache.find_fresh(KEY, now=clock[0])
    return None if entry is None else entry.version


def simulate(kind: type[ConfigCache], clock: list[float]) -> list[str]:
    """Return the violations of the first random interleaving that has any, with its seed."""
    for seed in range(SEEDS):
        clock[0] = 1_000.0
        violations = SimulatedProcess(kind, random.Random(seed), clock).run(STEPS)
        if violations:
            return [f"seed {seed}", *violations]
    return []


def test_no_interleaving_serves_a_version_that_is_too_old(clock: list[float]) -> None:
    assert simulate(ConfigCache, clock) == []


@pytest.mark.parametrize(
    "violation", [CacheThatForgetsNewerVersions, CacheThatKeepsEverySave, CacheWithoutLease, CacheWithoutStamps]
)
def test_the_simulation_detects_a_cache_with_a_deliberate_fault(
    violation: type[ConfigCache], clock: list[float]
) -> None:
    assert simulate(violation, clock) != []


def test_the_simulation_serves_reads_from_the_cache(clock: list[float]) -> None:
    answered = 0
    for seed in range(200):
        process = SimulatedProcess(ConfigCache, random.Random(seed), clock)
        process.run(STEPS)
        answered += process.answered
    assert answered > 100


def test_a_late_update_never_replaces_a_newer_version(cache: ConfigCache, clock: list[float]) -> None:
    assert update(cache, 2)
    assert not update(cache, 1)
    assert find_fresh_version(cache, clock) == 2


def test_an_update_that_is_superseded_while_pending_is_not_cached(cache: ConfigCache, clock: list[float]) -> None:
    assert not update(cache, 1, received=2)
    assert find_fresh_version(cache, clock) is None
    assert update(cache, 2, received=2)
    assert find_fresh_version(cache, clock) == 2


def test_only_a_newer_version_supersedes_an_entry(cache: ConfigCache, clock: list[float]) -> None:
    update(cache, 2)
    entry = cache.find_fresh(KEY, now=clock[0])
    assert entry is not None
    cache.observe_version(KEY, 2)
    assert find_fresh_version(cache, clock) == 2
    cache.observe_version(KEY, 3)
    assert find_fresh_version(cache, clock) is None
    # Code that still references the entry or its response can see that.
    assert entry.is_invalid
    prepared = entry.responses[Rendering.READABLE]
    assert prepared is not None
    assert prepared.is_invalid
    # It can be served as stale until a newer version is cached or the config is deleted.
    assert cache.find(KEY, now=clock[0]) is entry
    assert not update(cache, 2, received=3)
    assert find_fresh_version(cache, clock) is None
    assert update(cache, 3)
    assert find_fresh_version(cache, clock) == 3
    cache.observe_version(KEY, 4, is_deleted=True)
    assert cache.find(KEY, now=clock[0]) is None
    # The order in which changes arrive does not matter.
    update(cache, 5)
    cache.observe_version(KEY, 7)
    assert cache.find(KEY, now=clock[0]) is not None
    cache.observe_version(KEY, 6, is_deleted=True)
    assert cache.find(KEY, now=clock[0]) is None


def test_the_age_of_a_superseded_entry_counts_from_when_it_was_last_known_to_be_current(
    cache: ConfigCache, clock: list[float]
) -> None:
    update(cache, 1)
    entry = cache.find(KEY, now=clock[0])
    assert entry is not None
    clock[0] += 250.0
    cache.observe_version(KEY, 2)
    cache._lease.renew(clock[0])
    assert cache.compute_age_seconds(entry) == 250.0
    clock[0] += 5.0
    cache.observe_version(KEY, 3)
    assert cache.compute_age_seconds(entry) == 255.0


def test_a_missing_config_is_cached_briefly_and_until_the_first_save(cache: ConfigCache, clock: list[float]) -> None:
    assert update(cache, 0, configuration=None)
    entry = cache.find_fresh(KEY, now=clock[0])
    assert entry is not None
    assert entry.is_missing
    cache.observe_version(KEY, 1)
    assert find_fresh_version(cache, clock) is None
    update(cache, 1, configuration=None)
    clock[0] += MISSING_TTL_SECONDS
    cache._lease.renew(clock[0])
    assert find_fresh_version(cache, clock) is None


def test_after_the_lease_expires_no_entry_is_fresh_and_all_entries_are_kept(
    cache: ConfigCache, clock: list[float]
) -> None:
    update(cache, 1)
    clock[0] += 1.0
    assert find_fresh_version(cache, clock) is None
    entry = cache.find(KEY, now=clock[0])
    assert entry is not None
    assert entry.version == 1
    cache._lease.renew(clock[0])
    assert find_fresh_version(cache, clock) == 1


def test_an_entry_has_a_response_for_each_requested_rendering(cache: ConfigCache, clock: list[float]) -> None:
    update(cache, 1)
    entry = cache.find_fresh(KEY, now=clock[0])
    assert entry is not None
    size = entry.size_bytes
    assert [response is None for response in entry.responses] == [False, True, True, True]
    with cache.begin_update(KEY) as pending:
        cache.complete_update(
            pending, KEY, CurrentConfig(build_version(1), b'{"password":"x"}', UNTYPED), rendering=Rendering.MASKED
        )
    assert cache.find_fresh(KEY, now=clock[0]) is entry
    assert [response is None for response in entry.responses] == [False, False, True, True]
    assert entry.size_bytes > size
    assert cache._memory.bytes == entry.size_bytes
