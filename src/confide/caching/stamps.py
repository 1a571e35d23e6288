"""Stamps: exact invalidation between the processes of one machine.

The processes share an array of words, the slots. A slot covers one config, integration type or token. A process caches
an object together with the stamps that it took before the query, and uses it only while the slots still hold them. A
process that commits a change writes a new stamp before it answers. Decision record 30 has the reasons for each step.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple, Protocol

from confide.caching.lease import LEASE_SECONDS

WORD_COUNT = 1 << 17
# Words before the slots. One says that a SQLite writer is between its marks and its stamps.
HAS_MARKS = 0
# The slot that covers all cached objects, for acts on many of them.
EVERYTHING = 1
# A word that changes after each change of any slot, so that an unchanged one spares a comparison of slots.
LATEST = 2
FIRST_SLOT = 8
# An object depends on this many slots at most.
MAX_TAKEN = 3
# The bit of a word that marks the slot as in doubt: a change of what it covers is being committed.
IN_DOUBT = 1

LOCK_POLL_SECONDS = 0.001
# After this time the process that holds the lock was stopped, and the lease of its cache has expired.
MAX_LOCK_SECONDS = LEASE_SECONDS + 0.1


class TakenStamps(NamedTuple):
    """The stamps of some slots at one time. A result is cached under the stamps that were taken before its query."""

    slots: tuple[int, ...]
    stamps: tuple[int, ...]

    @property
    def is_in_doubt(self) -> bool:
        return any(stamp & IN_DOUBT for stamp in self.stamps)

    def without_first(self) -> TakenStamps:
        return TakenStamps(self.slots[1:], self.stamps[1:])

    def replace_first(self, stamp: int) -> TakenStamps:
        return TakenStamps(self.slots, (stamp, *self.stamps[1:]))


@dataclass(slots=True, eq=False)
class SlotChange:
    """A slot whose objects a transaction changes. Yielded as a step, it makes the engine stamp the slot.

    Afterwards `own_stamp` is the new stamp if the transaction may cache its own result under it.
    """

    slot: int
    # The stamp before the transaction. None if its result will not be cached.
    before: int | None = None
    own_stamp: int | None = None


class StampLock(Protocol):
    """A lock between processes."""

    def try_to_acquire(self) -> bool:
        """Acquire the lock, or return False at once if another process holds it."""

    def release(self) -> None: ...


class NoLock:
    """The lock of words that no other process shares."""

    def try_to_acquire(self) -> bool:
        return True

    def release(self) -> None:
        """Do nothing."""


def create_stamp() -> int:
    """Return a stamp that no slot has ever held. It is random, so a stamp that a stopped process writes late is new."""
    return secrets.randbits(63) << 1


class Stamps:
    """The protocol on the shared words. Reads and writes of a word are atomic, because words are aligned."""

    def __init__(
        self,
        words: MutableSequence[int] | memoryview,
        *,
        lock: StampLock | None = None,
        create_stamp: Callable[[], int] = create_stamp,
    ) -> None:
        # The cached read compares words itself.
        self.words = words
        self._lock = lock or NoLock()
        self._create_stamp = create_stamp

    def take(self, *slots: int) -> TakenStamps:
        """Take the current stamps of up to three slots. Call this before the query whose result will be cached."""
        words = self.words
        return TakenStamps(slots, tuple(words[slot] for slot in slots))

    def is_current(self, taken: TakenStamps) -> bool:
        """Return whether no change was committed since the stamps were taken, or can be in progress."""
        return not taken.is_in_doubt and self.is_unchanged(taken)

    def is_unchanged(self, taken: TakenStamps) -> bool:
        """Return whether the slots still hold these words. For stamps that were not in doubt, this is `is_current`."""
        # Without a loop, because a cached request compares its stamps once a second.
        words, (slots, stamps) = self.words, taken
        return (
            words[slots[0]] == stamps[0]
            and words[slots[-1]] == stamps[-1]
            and (len(slots) < MAX_TAKEN or words[slots[1]] == stamps[1])
        )

    def mark_in_doubt(self, changes: Iterable[SlotChange]) -> None:
        """Mark slots before a commit on SQLite. The caller holds the lock of the writers."""
        words = self.words
        for change in changes:
            words[HAS_MARKS] = 1
            words[change.slot] |= IN_DOUBT
        self._announce()

    def stamp_marked(self, changes: Iterable[SlotChange]) -> None:
        """Replace the marks by new stamps after a commit or rollback on SQLite. The caller holds the writers' lock.

        Of several changes of one slot, only the last one gets a stamp that the slot keeps.
        """
        for change in changes:
            self.words[change.slot] = change.own_stamp = self._create_stamp()
        self.words[HAS_MARKS] = 0
        self._announce()

    def clear_marks(self, *, must_search: bool) -> None:
        """Replace the marks that a writer left behind when it died. The caller holds the writers' lock.

        Without `must_search`, search only if a writer has left the word that says so. A power failure can lose it.
        """
        words = self.words
        if must_search or words[HAS_MARKS]:
            for slot in [slot for slot, word in enumerate(words) if word & IN_DOUBT and slot != HAS_MARKS]:
                words[slot] = self._create_stamp()
            words[HAS_MARKS] = 0
            self._announce()

    async def compare_and_stamp(self, changes: Sequence[SlotChange]) -> None:
        """Stamp slots after a commit on PostgreSQL, before the answer.

        A change gets its own stamp only if the slot still holds the stamp from before its transaction. Then no process
        has stamped a later change yet, and that stamp will differ.
        """
        if not changes:
            return
        try:
            is_locked = await self._acquire_lock()
        except BaseException:
            # The request is cancelled, so no client learns the outcome.
            self.stamp_unlocked(changes)
            raise
        if not is_locked:
            self.stamp_unlocked(changes)
            return
        try:
            for change in changes:
                is_first = self.words[change.slot] == change.before
                self.words[change.slot] = stamp = self._create_stamp()
                change.own_stamp = stamp if is_first else None
            self._announce()
        finally:
            self._lock.release()

    def stamp_unlocked(self, changes: Iterable[SlotChange]) -> None:
        """Stamp slots without waiting for the lock. The results of these changes are not cached."""
        for change in changes:
            self.words[change.slot] = self._create_stamp()
            change.own_stamp = None
        self._announce()

    def _announce(self) -> None:
        """Announce that slots have changed. A reader that sees this sees their new words too."""
        order_memory_accesses()
        self.words[LATEST] = self._create_stamp()

    async def _acquire_lock(self) -> bool:
        """Wait for the lock without blocking the event loop. Return False if a stopped process holds it.

        A process holds the lock for microseconds and never awaits meanwhile. If it was stopped for longer than the
        lease, it reads the change feed before it answers from its cache again.
        """
        deadline = time.monotonic() + MAX_LOCK_SECONDS
        while not self._lock.try_to_acquire():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOCK_POLL_SECONDS)
        return True


def order_memory_accesses() -> None:
    """Keep a processor from reordering memory accesses before this call with those after it.

    x86 never reorders two loads or two stores, but ARM does. Releasing a lock orders the accesses before it,
    acquiring a lock orders those after it, and the first release comes before the second acquisition.
    """
    lock = threading.Lock()
    for _ in range(2):
        lock.acquire()
        lock.release()


def find_config_slot(tenant: str, integration_type: str) -> int:
    return _find_slot(b"config", tenant.encode(), integration_type.encode())


def find_type_slot(name: str) -> int:
    return _find_slot(b"type", name.encode())


def find_token_slot(token_hash: bytes) -> int:
    return _find_slot(b"token", token_hash)


def _find_slot(*names: bytes) -> int:
    """Return the slot of an object, the same in every process and release.

    Objects that share a slot cost each other queries, never a wrong answer.
    """
    digest = blake2b(b"\0".join(names), digest_size=8).digest()
    return FIRST_SLOT + int.from_bytes(digest, "little") % (WORD_COUNT - FIRST_SLOT)
