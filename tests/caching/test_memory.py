"""What is remembered stays within its bytes, and what was used longest ago goes first."""

from __future__ import annotations

import random

import pytest

from confide.caching.memory import PLACE_BYTES, BoundedMemory, MemoryEntry


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("confide.caching.memory.boottime", lambda: now[0])
    return now


def test_what_was_used_longest_ago_goes_first(clock: list[float]) -> None:
    memory: BoundedMemory[MemoryEntry] = BoundedMemory(3 * (PLACE_BYTES + 100))
    things = {name: MemoryEntry(100) for name in "abcd"}
    for name in "abc":
        memory.put(name, things[name])
    clock[0] = 2
    assert memory.get("a", now=2) is things["a"]
    memory.put("d", things["d"])
    assert memory.get("b", now=2) is None
    assert [things[name].is_over for name in "abcd"] == [False, True, False, False]
    assert memory.evicted == 1


def test_the_sum_is_what_is_held_after_anything_and_never_more_than_the_limit(clock: list[float]) -> None:
    chance = random.Random(7)
    memory: BoundedMemory[MemoryEntry] = BoundedMemory(20_000)
    for _ in range(5_000):
        clock[0] += chance.random()
        name = chance.randrange(60)
        match chance.randrange(5):
            case 0 | 1:
                memory.put(name, MemoryEntry(chance.randrange(2_000)))
            case 2:
                memory.drop(name)
            case 3 if (known := memory.get(name, now=clock[0])) is not None:
                memory.grow(name, known, chance.randrange(500))
            case _:
                memory.get(name, now=clock[0])
        assert memory.bytes == sum(held.size for held in memory._held.values()) <= 20_000
    memory.clear()
    assert (memory.bytes, len(memory)) == (0, 0)


def test_what_is_larger_than_all_of_it_is_not_kept_and_nothing_at_all_where_the_limit_is_zero(
    clock: list[float],
) -> None:
    memory: BoundedMemory[MemoryEntry] = BoundedMemory(0)
    thing = MemoryEntry(1)
    memory.put("a", thing)
    assert thing.is_over
    assert (memory.bytes, len(memory)) == (0, 0)
