"""Stamps: every interleaving of two writers and two readers keeps the promise, and each deliberate fault breaks it."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from confide.caching import stamps as stamps_module
from confide.caching.stamps import (
    EVERYTHING,
    FIRST_SLOT,
    HAS_MARKS,
    IN_DOUBT,
    LATEST,
    WORD_COUNT,
    SlotChange,
    Stamps,
    create_stamp,
    find_config_slot,
    find_token_slot,
    find_type_slot,
)
from support.cache_simulation import run_without_waiting
from support.interleavings import explore
from support.stamp_protocol import Machine, Scenario
from support.waiting import wait_until_async

EVERYWHERE = (0, 1, 2)
# The processes of the two readers. The writers run in the first two.
PLACES = [(0, 1), (0, 2), (2, 2)]


def find_violation(engine: str, **more: object) -> str | None:
    """Explore the placements of the readers until one has a violation."""
    for readers in PLACES:
        scenario = Scenario(engine, readers, EVERYWHERE, **more)  # type: ignore[arg-type]
        found = explore(lambda scenario=scenario: Machine(scenario))  # type: ignore[misc]
        assert found.states > 1
        if found.violation:
            return found.violation
    return None


@pytest.mark.parametrize("readers", PLACES)
@pytest.mark.parametrize("cached", [(), EVERYWHERE], ids=["empty", "cached"])
def test_no_order_of_two_writers_and_two_readers_makes_a_read_stale(
    engine: str, readers: tuple[int, int], cached: tuple[int, ...]
) -> None:
    found = explore(lambda: Machine(Scenario(engine, readers, cached)))
    assert found.violation is None
    # Far more than one order was explored.
    assert found.states > 5_000


@pytest.mark.parametrize(
    ("engine", "fault"),
    [
        ("sqlite", "stamp-before-commit"),
        ("sqlite", "stamp-after-answer"),
        ("sqlite", "no-mark"),
        ("sqlite", "share-regardless-of-stamps"),
        ("postgresql", "stamp-before-commit"),
        ("postgresql", "stamp-after-answer"),
        ("postgresql", "keep-without-compare"),
        ("postgresql", "share-regardless-of-stamps"),
    ],
)
def test_each_deliberate_fault_makes_a_read_stale_in_some_order(engine: str, fault: str) -> None:
    assert find_violation(engine, fault=fault)


def test_a_writer_that_dies_or_fails_makes_no_read_stale() -> None:
    assert find_violation("sqlite", dies_after="mark") is None
    assert find_violation("sqlite", dies_after="commit") is None
    assert find_violation("sqlite", fails=True) is None
    assert find_violation("postgresql", dies_after="commit") is None


def test_an_answer_that_confirms_the_version_of_a_dead_writer_must_stamp_it(engine: str) -> None:
    dead = {"writers": (0,), "confirmers": (1,), "dies_after": "commit"}
    assert find_violation(engine, **dead) is None
    if engine == "postgresql":
        assert find_violation(engine, fault="confirm-without-stamp", **dead)


def create_stamps(**more: object) -> Stamps:
    return Stamps([0] * 32, **more)  # type: ignore[arg-type]


def test_marks_of_a_dead_writer_are_replaced_by_new_stamps() -> None:
    stamps = create_stamps()
    before = stamps.take(EVERYTHING, 8, 9)
    stamps.mark_in_doubt([SlotChange(EVERYTHING), SlotChange(9)])
    assert not stamps.is_current(stamps.take(9))
    stamps.clear_marks(must_search=False)
    assert stamps.words[HAS_MARKS] == 0
    after = stamps.take(EVERYTHING, 8, 9)
    assert [new == old for new, old in zip(after.stamps, before.stamps, strict=True)] == [False, True, False]
    assert stamps.is_current(after)


def test_a_mark_without_the_word_that_announces_it_is_found_by_a_search() -> None:
    # A power failure can write one page of the file and lose another.
    stamps = create_stamps()
    stamps.mark_in_doubt([SlotChange(9)])
    stamps.words[HAS_MARKS] = 0
    stamps.clear_marks(must_search=False)
    assert stamps.words[9] & IN_DOUBT
    stamps.clear_marks(must_search=True)
    assert not stamps.words[9] & IN_DOUBT


def test_of_two_changes_of_one_slot_in_a_batch_only_the_last_keeps_its_stamp() -> None:
    stamps = create_stamps()
    first, last = SlotChange(9), SlotChange(9)
    stamps.mark_in_doubt([first, last])
    stamps.stamp_marked([first, last])
    assert first.own_stamp != last.own_stamp == stamps.words[9]


class RecordingWords(list[int]):
    """Words that record which of them were written, in order."""

    def __init__(self) -> None:
        super().__init__([0] * 32)
        self.written: list[int] = []

    def __setitem__(self, index: Any, word: Any) -> None:
        super().__setitem__(index, word)
        self.written.append(index)


async def test_the_latest_change_is_announced_after_every_change_of_a_slot() -> None:
    words = RecordingWords()
    stamps = Stamps(words)
    announced = [words[LATEST]]
    for act in (
        lambda: stamps.mark_in_doubt([SlotChange(9)]),
        lambda: stamps.clear_marks(must_search=False),
        lambda: stamps.mark_in_doubt([SlotChange(9)]),
        lambda: stamps.stamp_marked([SlotChange(9)]),
        lambda: stamps.stamp_unlocked([SlotChange(9)]),
        lambda: run_without_waiting(stamps.compare_and_stamp([SlotChange(9)])),
    ):
        words.written.clear()
        act()
        assert 9 in words.written
        assert words.written[-1] == LATEST
        announced.append(words[LATEST])
    assert len(set(announced)) == len(announced)


class HeldLock:
    """A lock that another process holds until it is released."""

    def __init__(self) -> None:
        self.is_held = True
        self.attempts = 0

    def try_to_acquire(self) -> bool:
        self.attempts += 1
        return not self.is_held

    def release(self) -> None: ...

    async def wait_for_attempts(self, count: int) -> None:
        await wait_until_async(lambda: self.attempts >= count, "the lock is tried", poll_seconds=0)


async def test_a_change_waits_for_the_lock_without_blocking_the_event_loop() -> None:
    lock = HeldLock()
    stamps = create_stamps(lock=lock)
    change = SlotChange(9, stamps.words[9])
    stamping = asyncio.create_task(stamps.compare_and_stamp([change]))
    await lock.wait_for_attempts(3)
    assert stamps.words[9] == change.before
    lock.is_held = False
    await stamping
    assert change.own_stamp == stamps.words[9] != change.before


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_change_is_stamped_without_the_lock_if_its_holder_was_stopped(
    monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    lock = HeldLock()
    stamps = create_stamps(lock=lock)
    change = SlotChange(9, before := stamps.words[9])
    stamping = asyncio.create_task(stamps.compare_and_stamp([change]))
    await lock.wait_for_attempts(1)
    if is_cancelled:
        stamping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stamping
    else:
        monkeypatch.setattr(stamps_module, "MAX_LOCK_SECONDS", 0.0)
        await stamping
    assert stamps.words[9] != before
    # The holder may overwrite the stamp, so nothing is cached under it.
    assert change.own_stamp is None


def test_names_have_their_own_slots_after_the_reserved_words() -> None:
    slots = [find_config_slot("acme", "a"), find_config_slot("acm", "ea"), find_type_slot("a"), find_token_slot(b"a")]
    assert len(set(slots)) == len(slots)
    # The same in every process and every release: processes of two releases run together during an update.
    assert find_config_slot("acme", "flight-information-system") == 25_380
    many = {find_config_slot("acme", f"type-{number}") for number in range(1_000)}
    assert len(many) > 980
    assert all(FIRST_SLOT <= slot < WORD_COUNT for slot in itertools.chain(slots, many))


def test_a_new_stamp_is_a_word_that_is_not_in_doubt() -> None:
    stamps = {create_stamp() for _ in range(1_000)}
    assert len(stamps) == 1_000
    assert not any(stamp & IN_DOUBT or stamp >= 1 << 64 for stamp in stamps)
