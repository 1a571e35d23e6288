"""One process's cache, driven through random orders of fills, saves, news, evictions and time."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from confide.caching.lease import Lease
from confide.caching.lru_cache import LruCache
from confide.changes.model import Change, Position
from confide.changes.subscriber import ChangeSubscriber
from confide.changes.watch import WatchHub
from confide.configs.model import DecryptedConfig
from confide.errors import DatabaseUnavailable
from confide.identity.authenticator import Authenticator
from confide.integration_types.active import ActiveIntegrationTypes
from confide.names import Key
from confide.reads.cache import ConfigCache, PendingUpdate
from confide.reads.model import CurrentConfig, Rendering

KEYS = [Key("acme", "a"), Key("acme", "b"), Key("globex", "a")]
STALE_SECONDS = 1.0


class Answer:
    """A prepared answer that says which version it is."""

    def __init__(self, config: DecryptedConfig) -> None:
        self.version, self.size_bytes, self.is_invalid = config.version, 100, False


class Log:
    """The truth: what was committed and when; and one process's news of it, which may fail or come late."""

    def __init__(self) -> None:
        self.committed: list[tuple[float, Key, int]] = []
        self.versions = dict.fromkeys(KEYS, 0)
        self.heard = 0
        self.is_cut = False

    def commit(self, key: Key, now: float) -> int:
        self.versions[key] += 1
        self.committed.append((now, key, self.versions[key]))
        return self.versions[key]

    def newest(self, key: Key, *, before: float) -> int:
        return max((version for at, known, version in self.committed if known == key and at <= before), default=0)

    async def read(self) -> list[Change]:
        if self.is_cut:
            raise DatabaseUnavailable
        new, self.heard = self.committed[self.heard :], len(self.committed)
        return [Change(Position(0, 1), "saved", *key, version, None) for _, key, version in new]

    async def wait(self) -> None: ...

    def watermark_age(self) -> float:
        return 0.0

    def notify(self) -> None: ...

    async def close(self) -> None: ...


@dataclass
class Fill:
    """A fill or a save on its way: opened, then it knows its version, then it lands."""

    key: Key
    update: PendingUpdate
    context: Any
    version: int | None = None
    is_save: bool = False


@dataclass
class Process:
    """A process in simulated time."""

    kind: type[ConfigCache]
    chance: random.Random
    clock: list[float]
    violations: list[str] = field(default_factory=list)
    answered: int = 0

    def __post_init__(self) -> None:
        self.log = Log()
        self.lease = Lease()
        self.memory: LruCache[Any] = LruCache(3_000)
        self.cache = self.kind(
            self.memory,
            self.lease,
            prepare=Answer,  # type: ignore[arg-type]
            ttl_seconds=50,
        )
        authenticator = Authenticator(None, self.memory, self.lease, clock=lambda: 0, ttl_seconds=50)  # type: ignore[arg-type]
        types = ActiveIntegrationTypes(None, self.memory, self.lease)  # type: ignore[arg-type]
        self.listener = ChangeSubscriber(
            self.log,
            lease=self.lease,
            memory=self.memory,
            cache=self.cache,
            authenticator=authenticator,
            types=types,
            watching=WatchHub(None, authenticator, write=repr),  # type: ignore[arg-type]
        )
        self.flights: list[Fill] = []
        self.least = dict.fromkeys(KEYS, 0)  # what this process has answered or saved must not be undone

    @property
    def now(self) -> float:
        return self.clock[0]

    def run(self, steps: int) -> list[str]:
        acts = [
            self.rival,
            self.begin_fill,
            self.read_store,
            self.complete_update,
            self.observe_version,
            self.cut,
            self.pass_time,
        ]
        acts += [self.save, self.evict, self.read, self.read, self.read]
        for _ in range(steps):
            self.chance.choice(acts)()
        return self.violations

    def rival(self) -> None:
        self.log.commit(self.chance.choice(KEYS), self.now)

    def begin_fill(self) -> None:
        key = self.chance.choice(KEYS)
        context = self.cache.begin_update(key)
        self.flights.append(Fill(key, context.__enter__(), context))

    def read_store(self) -> None:
        waiting = [one for one in self.flights if one.version is None]
        if waiting:
            one = self.chance.choice(waiting)
            one.version = self.log.versions[one.key]

    def save(self) -> None:
        """A save of this process: the commit is there before the process goes on to say so."""
        key = self.chance.choice(KEYS)
        context = self.cache.begin_update(key)
        self.flights.append(Fill(key, context.__enter__(), context, self.log.commit(key, self.now), is_save=True))

    def complete_update(self) -> None:
        ready = [one for one in self.flights if one.version is not None]
        if not ready:
            return
        one = self.chance.choice(ready)
        self.flights.remove(one)
        version = one.version or 0
        self.cache.complete_update(
            one.update, one.key, CurrentConfig(version, b"{}" if version else None), rendering=Rendering.READABLE
        )
        one.context.__exit__(None, None, None)
        if one.is_save:
            self.least[one.key] = max(self.least[one.key], version)

    def observe_version(self) -> None:
        finished(self.listener.read_changes())

    def cut(self) -> None:
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
        least = max(self.least[key], self.log.newest(key, before=self.now - STALE_SECONDS))
        if entry.version < least:
            self.violations.append(f"at {self.now:.2f} {key} was answered with {entry.version}, and {least} was known")
        self.least[key] = max(self.least[key], entry.version)
        self.answered += 1


def finished(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


class DropOnNews(ConfigCache):
    """A planted fault: the usual cache, which drops what it hears of and takes whatever a late fill brings."""

    def complete_update(
        self, update: PendingUpdate, key: Key, current: CurrentConfig, *, rendering: Rendering
    ) -> list[Any] | None:
        update.newest_version = 0
        self._memory.drop(key)
        return super().complete_update(update, key, current, rendering=rendering)


class WithoutLease(ConfigCache):
    """A planted fault: what is remembered is believed however long nothing was heard."""

    def find_fresh(self, key: Key, *, now: float) -> Any:
        return self.find(key, now=now)
