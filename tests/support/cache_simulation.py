"""A simulation that drives one process's cache through random orders of fills, saves, changes and evictions."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from confide.caching.lease import Lease
from confide.caching.lru_cache import CacheEntry, LruCache
from confide.caching.stamps import WORD_COUNT, SlotChange, Stamps, TakenStamps, find_config_slot
from confide.changes.model import Change, Position
from confide.changes.subscriber import ChangeSubscriber
from confide.changes.watch import WatchHub
from confide.epoch import CurrentEpoch
from confide.errors import DatabaseUnavailable
from confide.identity.authenticator import Authenticator
from confide.integration_types.active import ActiveIntegrationTypes
from confide.integration_types.compiled import UNTYPED
from confide.names import ConfigKey
from confide.reads.cache import ConfigCache, PendingUpdate
from confide.reads.model import CurrentConfig, RenderedConfig, Rendering
from support.rows import build_version

KEYS = [ConfigKey("acme", "a"), ConfigKey("acme", "b"), ConfigKey("globex", "a")]
STALE_SECONDS = 1.0


class VersionedResponse:
    """A prepared response that only knows its version."""

    def __init__(self, config: RenderedConfig) -> None:
        self.version, self.size_bytes, self.is_invalid = config.stored.version, 100, False


class SimulatedChangeLog:
    """All commits with their times, and a change feed of them that may fail or lag."""

    connection_number = 1

    def __init__(self) -> None:
        self.committed: list[tuple[float, ConfigKey, int]] = []
        self.versions = dict.fromkeys(KEYS, 0)
        self.delivered = 0
        self.is_cut = False

    def commit(self, key: ConfigKey, now: float) -> int:
        self.versions[key] += 1
        self.committed.append((now, key, self.versions[key]))
        return self.versions[key]

    def find_newest(self, key: ConfigKey, *, before: float) -> int:
        return max((version for at, known, version in self.committed if known == key and at <= before), default=0)

    async def read(self) -> list[Change]:
        if self.is_cut:
            raise DatabaseUnavailable
        new, self.delivered = self.committed[self.delivered :], len(self.committed)
        return [Change(Position(0, 1), "saved", *key, version, None) for _, key, version in new]

    async def wait(self) -> None: ...

    def compute_watermark_age_seconds(self) -> float:
        return 0.0

    def notify(self) -> None: ...

    async def close(self) -> None: ...


@dataclass
class Fill:
    """A fill or a save in progress: it starts, gets its version, then lands in the cache."""

    key: ConfigKey
    update: PendingUpdate
    context: Any
    version: int | None = None
    is_save: bool = False


@dataclass
class SimulatedProcess:
    """A process in simulated time."""

    kind: type[ConfigCache]
    chance: random.Random
    clock: list[float]
    violations: list[str] = field(default_factory=list)
    answered: int = 0

    def __post_init__(self) -> None:
        self.log = SimulatedChangeLog()
        self.lease, epoch = Lease(), CurrentEpoch()
        self.memory: LruCache[CacheEntry] = LruCache(4_000)
        self.stamps = stamps = Stamps([0] * WORD_COUNT)
        self.cache = self.kind(
            self.memory,
            self.lease,
            stamps,
            epoch=epoch,
            prepare=VersionedResponse,  # type: ignore[arg-type]
            ttl_seconds=50,
        )
        no_store: Any = None
        authenticator = Authenticator(no_store, self.memory, self.lease, stamps, clock=lambda: 0, ttl_seconds=50)
        types = ActiveIntegrationTypes(no_store, self.memory, self.lease, stamps)
        self.subscriber = ChangeSubscriber(
            self.log,
            epoch=epoch,
            lease=self.lease,
            memory=self.memory,
            cache=self.cache,
            authenticator=authenticator,
            types=types,
            hub=WatchHub(None, authenticator, epoch=epoch, encode=repr, max_streams=1, max_streams_of_a_token=1),  # type: ignore[arg-type]
        )
        self.updates: list[Fill] = []
        self.min_versions = dict.fromkeys(KEYS, 0)  # the oldest version that each key may still answer with

    @property
    def now(self) -> float:
        return self.clock[0]

    def run(self, steps: int) -> list[str]:
        choices = [
            self.save_elsewhere,
            self.save_on_this_machine,
            self.begin_fill,
            self.read_store,
            self.complete_update,
            self.read_changes,
            self.toggle_outage,
            self.pass_time,
        ]
        choices += [self.save, self.evict, self.read, self.read, self.read]
        for _ in range(steps):
            self.chance.choice(choices)()
        return self.violations

    def save_elsewhere(self) -> None:
        self.log.commit(self.chance.choice(KEYS), self.now)

    def save_on_this_machine(self) -> None:
        """Commit a save of another process that shares the stamps, and answer it."""
        key = self.chance.choice(KEYS)
        version = self.log.commit(key, self.now)
        run_without_waiting(self.stamps.compare_and_stamp([SlotChange(find_config_slot(*key))]))
        self.min_versions[key] = version

    def begin_fill(self) -> None:
        key = self.chance.choice(KEYS)
        context = self.cache.begin_update(key)
        self.updates.append(Fill(key, context.__enter__(), context))

    def read_store(self) -> None:
        waiting = [one for one in self.updates if one.version is None]
        if waiting:
            one = self.chance.choice(waiting)
            one.version = self.log.versions[one.key]

    def save(self) -> None:
        """Commit a save of this process; its result lands in the cache later."""
        key = self.chance.choice(KEYS)
        context = self.cache.begin_update(key)
        self.updates.append(Fill(key, context.__enter__(), context, self.log.commit(key, self.now), is_save=True))

    def complete_update(self) -> None:
        ready = [one for one in self.updates if one.version is not None]
        if not ready:
            return
        one = self.chance.choice(ready)
        self.updates.remove(one)
        version = one.version or 0
        current = CurrentConfig(build_version(version, key=one.key), b"{}", UNTYPED) if version else CurrentConfig(None)
        if one.is_save:
            change = one.update.create_change()
            run_without_waiting(self.stamps.compare_and_stamp([change]))
            one.update.adopt_stamp(change)
        self.cache.complete_update(one.update, one.key, current, rendering=Rendering.READABLE)
        one.context.__exit__(None, None, None)
        if one.is_save:
            self.min_versions[one.key] = max(self.min_versions[one.key], version)

    def read_changes(self) -> None:
        run_without_waiting(self.subscriber.read_changes())

    def toggle_outage(self) -> None:
        self.log.is_cut = not self.log.is_cut and self.chance.random() < 0.5

    def pass_time(self) -> None:
        self.clock[0] += self.chance.choice([0.05, 0.3, 0.6, 2.0])

    def evict(self) -> None:
        self.memory.drop(self.chance.choice(KEYS))

    def read(self) -> None:
        key = self.chance.choice(KEYS)
        entry = self.cache.find_fresh(key, now=self.now)
        if entry is None:
            return
        min_version = max(self.min_versions[key], self.log.find_newest(key, before=self.now - STALE_SECONDS))
        if entry.version < min_version:
            self.violations.append(
                f"at {self.now:.2f} {key} was answered with {entry.version}, older than {min_version}"
            )
        self.min_versions[key] = max(self.min_versions[key], entry.version)
        self.answered += 1


def run_without_waiting(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the coroutine waits")


class CacheThatForgetsNewerVersions(ConfigCache):
    """A deliberate fault: a change drops the entry, and a late fill may store an older version."""

    def complete_update(
        self, update: PendingUpdate, key: ConfigKey, current: CurrentConfig, *, rendering: Rendering
    ) -> list[Any] | None:
        update.newest_version = 0
        self._memory.drop(key)
        return super().complete_update(update, key, current, rendering=rendering)


class CacheWithoutLease(ConfigCache):
    """A deliberate fault: entries stay valid however old the last read of the change feed is."""

    def find_fresh(self, key: ConfigKey, *, now: float) -> Any:
        return self.find(key, now=now)


class CacheWithoutStamps(ConfigCache):
    """A deliberate fault: stamps of other processes do not end entries."""

    def __init__(self, memory: LruCache[Any], lease: Lease, stamps: Stamps, **more: Any) -> None:
        super().__init__(memory, lease, _PermanentStamps(stamps.words), **more)


class CacheThatKeepsEverySave(ConfigCache):
    """A deliberate fault: a save is cached even if another process has stamped its config meanwhile."""

    def complete_update(
        self, update: PendingUpdate, key: ConfigKey, current: CurrentConfig, *, rendering: Rendering
    ) -> list[Any] | None:
        update.stamps = self.take_stamps(key)
        return super().complete_update(update, key, current, rendering=rendering)


class _PermanentStamps(Stamps):
    """Stamps that are always current."""

    def is_unchanged(self, taken: TakenStamps) -> bool:  # noqa: ARG002 - the fault
        return True
