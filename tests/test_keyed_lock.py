"""Operations on one key run one by one, and a full queue rejects callers."""

from __future__ import annotations

import asyncio

from confide.errors import Busy
from confide.keyed_lock import KeyedLock, LockQueue


async def test_holders_of_one_key_run_one_by_one_and_of_different_keys_at_once() -> None:
    locks: KeyedLock[str, LockQueue] = KeyedLock(LockQueue, max_queued=10)
    running: dict[str, int] = {"a": 0, "b": 0}
    highest = {"a": 0, "b": 0}

    async def hold_lock(name: str) -> None:
        async with locks.acquire(name):
            running[name] += 1
            highest[name] = max(highest[name], running[name])
            await asyncio.sleep(0.001)
            assert running["a"] + running["b"] <= 2
            running[name] -= 1

    await asyncio.gather(*(hold_lock(name) for name in "abababab"))
    assert highest == {"a": 1, "b": 1}
    assert locks._queues == {}


async def test_a_full_queue_rejects_callers_at_once_and_is_not_kept() -> None:
    locks: KeyedLock[str, LockQueue] = KeyedLock(LockQueue, max_queued=2)

    async def hold_lock() -> None:
        async with locks.acquire("a"):
            await asyncio.sleep(0.01)

    results = await asyncio.gather(*(hold_lock() for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 3
    assert locks._queues == {}


async def test_a_cancelled_caller_in_the_queue_blocks_no_other() -> None:
    locks: KeyedLock[str, LockQueue] = KeyedLock(LockQueue, max_queued=10)

    async def hold_lock() -> str:
        async with locks.acquire("a"):
            await asyncio.sleep(0.01)
            return "done"

    tasks = [asyncio.create_task(hold_lock()) for _ in range(4)]
    await asyncio.sleep(0.001)
    tasks[0].cancel()
    tasks[2].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result == "done" for result in results] == [False, True, False, True]
    assert locks._queues == {}
