"""The LRU cache stays within its memory limit and evicts the least recently used entries first."""

from __future__ import annotations

import random

import pytest

from confide.caching.lru_cache import ENTRY_OVERHEAD_BYTES, CacheEntry, LruCache


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("confide.caching.lru_cache.read_boot_clock", lambda: now[0])
    return now


def test_the_least_recently_used_entry_is_evicted_first(clock: list[float]) -> None:
    cache: LruCache[CacheEntry] = LruCache(3 * (ENTRY_OVERHEAD_BYTES + 100))
    entries = {name: CacheEntry(100) for name in "abcd"}
    for name in "abc":
        cache.put(name, entries[name])
    clock[0] = 2
    assert cache.get("a", now=2) is entries["a"]
    cache.put("d", entries["d"])
    assert cache.get("b", now=2) is None
    assert [entries[name].is_invalid for name in "abcd"] == [False, True, False, False]
    assert cache.evicted == 1


def test_the_counted_bytes_match_the_entries_and_stay_within_the_limit(clock: list[float]) -> None:
    chance = random.Random(7)
    cache: LruCache[CacheEntry] = LruCache(20_000)
    for _ in range(5_000):
        clock[0] += chance.random()
        name = chance.randrange(60)
        match chance.randrange(5):
            case 0 | 1:
                cache.put(name, CacheEntry(chance.randrange(2_000)))
            case 2:
                cache.drop(name)
            case 3 if (entry := cache.get(name, now=clock[0])) is not None:
                cache.grow(name, entry, chance.randrange(500))
            case _:
                cache.get(name, now=clock[0])
        assert cache.bytes == sum(entry.size_bytes for entry in cache._entries.values()) <= 20_000
    cache.clear()
    assert (cache.bytes, len(cache)) == (0, 0)


def test_a_cache_with_a_limit_of_zero_keeps_nothing(clock: list[float]) -> None:
    cache: LruCache[CacheEntry] = LruCache(0)
    entry = CacheEntry(1)
    cache.put("a", entry)
    assert entry.is_invalid
    assert (cache.bytes, len(cache)) == (0, 0)
