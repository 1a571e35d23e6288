"""The cache of configs, which never goes back a version."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from confide.domain import bodies, masking
from confide.domain.configs import OpenedConfig
from confide.domain.names import Key
from confide.service.lease import Lease, running_time
from confide.service.memory import Memory

MISSING_SECONDS = 5.0


class Rendering(enum.IntEnum):
    """How a config is shown: as it is, or with its secrets masked."""

    OPENED = 0
    MASKED = 1


class Prepared(Protocol):
    """An answer that only has to be sent. The door makes it; the service knows no more of it than this."""

    @property
    def version(self) -> int: ...
    @property
    def size(self) -> int: ...


class Current(NamedTuple):
    """What a key holds now, as bytes of JSON; None if it is missing, then with its tombstone's version or 0."""

    version: int
    configuration: bytes | None


@dataclass(slots=True)
class _Entry:
    """One version of one config, with an answer for each rendering asked for so far; none if it is missing."""

    version: int
    fresh_until: float
    answers: list[Any] = field(default_factory=lambda: [None, None])

    @property
    def is_missing(self) -> bool:
        return self.answers == [None, None]


class Flight:
    """Something under way that will know a version of a key: a fill or a save."""

    __slots__ = ("heard",)

    def __init__(self) -> None:
        self.heard = 0


class Cache:
    """Answers for keys, given only while they are proven and at least the version that was heard of.

    News of a version newer than the one held ends the entry; news of one newer than what a flight brings
    keeps that from landing. So nothing older ever takes the place of what is known to be newer.
    """

    def __init__(
        self,
        memory: Memory,
        lease: Lease,
        *,
        prepare: Callable[[OpenedConfig], Prepared],
        ttl_seconds: float,
    ) -> None:
        self._memory = memory
        self._lease = lease
        self._prepare = prepare
        self._ttl_seconds = ttl_seconds
        self._flights: dict[Key, list[Flight]] = {}

    def held(self, key: Key, rendering: Rendering, *, floor: int, now: float) -> Any:
        """The answer for a key, of at least the version `floor`, if memory may give it; None otherwise."""
        entry = self._memory.get(key)
        if entry is None or now >= self._lease.until or now >= entry.fresh_until or entry.version < floor:
            return None
        return entry.answers[rendering]

    def unproven(self, key: Key, rendering: Rendering, *, floor: int) -> Any:
        """The answer for a key, of at least the version `floor`, whether or not it is proven to be the newest."""
        entry = self._memory.get(key)
        return None if entry is None or entry.version < floor else entry.answers[rendering]

    def is_missing(self, key: Key, *, now: float) -> bool:
        """Whether memory may say that there is nothing."""
        entry = self._memory.get(key)
        return entry is not None and entry.is_missing and now < self._lease.until and now < entry.fresh_until

    def hear(self, key: Key, version: int) -> None:
        """Somebody saved this version: whatever is older ends, or will not land."""
        for flight in self._flights.get(key, ()):
            flight.heard = max(flight.heard, version)
        entry = self._memory.get(key)
        if entry is not None and entry.version < version:
            self._memory.drop(key)

    def overtake_all(self) -> None:
        """Let nothing land that is under way now."""
        for flights in self._flights.values():
            for flight in flights:
                flight.heard = sys.maxsize

    @contextmanager
    def flight(self, key: Key) -> Iterator[Flight]:
        """Say that a version of a key will be known, before it is asked for or committed."""
        flight = Flight()
        flights = self._flights.setdefault(key, [])
        flights.append(flight)
        try:
            yield flight
        finally:
            flights.remove(flight)
            if not flights:
                self._flights.pop(key, None)

    def land(self, flight: Flight, key: Key, current: Current, *, rendering: Rendering) -> list[Any] | None:
        """Put what a flight brought in place and return its answers; None if it was overtaken on the way."""
        if current.version < flight.heard:
            return None
        self.hear(key, current.version)
        entry = self._memory.get(key)
        if entry is not None and entry.version > current.version:
            return None
        answers = [None, None] if entry is None else entry.answers
        if current.configuration is not None and answers[rendering] is None:
            answers[rendering] = self._prepared(key, current, rendering)
        seconds = MISSING_SECONDS if current.configuration is None else self._ttl_seconds
        entry = _Entry(current.version, running_time() + seconds, answers)
        self._memory.put(key, entry, size=_size(key, entry))
        return answers

    def _prepared(self, key: Key, current: Current, rendering: Rendering) -> Prepared:
        configuration = current.configuration or b""
        is_masked = rendering is Rendering.MASKED
        shown = bodies.write(masking.masked(bodies.read_kept(configuration))) if is_masked else configuration
        return self._prepare(OpenedConfig(key, current.version, shown, is_masked=is_masked))


def _size(key: Key, entry: _Entry) -> int:
    own = sum(map(sys.getsizeof, (key, *key, entry, entry.answers, entry.version, entry.fresh_until)))
    answers: list[Prepared] = [answer for answer in entry.answers if answer is not None]
    return own + sum(answer.size for answer in answers)
