"""The cache of configs, which never goes back a version."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from confide import strict_json
from confide.caching.lease import Lease
from confide.caching.memory import BoundedMemory, MemoryEntry
from confide.clock import boottime
from confide.configs.model import DecryptedConfig
from confide.integration_types.model import IntegrationType
from confide.names import Key
from confide.reads.model import Current, Rendering
from confide.reads.response import PreparedResponse

MISSING_SECONDS = 5.0
# An entry with its list and numbers, without what it names and answers.
ENTRY_BYTES = 240


class Entry(MemoryEntry):
    """One version of one config, with an answer for each rendering asked for so far; none if it is missing."""

    __slots__ = ("answers", "fresh_until", "is_missing", "superseded_at", "version")

    def __init__(self, key: Key, version: int, *, is_missing: bool) -> None:
        super().__init__(ENTRY_BYTES + sum(map(sys.getsizeof, (key, *key, version))))
        self.version = version
        # When it was last proven, once a newer one was heard of: then it is over and may only stand in.
        self.superseded_at = math.inf
        self.answers: list[PreparedResponse | None] = [None] * len(Rendering)
        self.is_missing = is_missing
        self.fresh_until = 0.0

    def end(self) -> None:
        super().end()
        for answer in self.answers:
            if answer is not None:
                answer.is_over = True


class Flight:
    """Something under way that will know a version of a key: a fill or a save."""

    __slots__ = ("heard",)

    def __init__(self) -> None:
        self.heard = 0


class Cache:
    """Answers for keys, given only while they are proven and at least the version that was heard of.

    News of a version newer than the one held leaves the entry unproven; news of one newer than what a flight
    brings keeps that from landing. So nothing older ever takes the place of what is known to be newer.
    """

    def __init__(
        self,
        memory: BoundedMemory[Any],
        lease: Lease,
        *,
        prepare: Callable[[DecryptedConfig], PreparedResponse],
        ttl_seconds: float,
    ) -> None:
        self._memory = memory
        self._lease = lease
        self._prepare = prepare
        self._ttl_seconds = ttl_seconds
        self._flights: dict[Key, list[Flight]] = {}

    def proven(self, key: Key, *, now: float) -> Entry | None:
        """What memory may speak for, be it that there is nothing."""
        entry = self.find_any(key, now=now)
        if entry is None or now >= self._lease.until or now >= entry.fresh_until or entry.is_over:
            return None
        return entry

    def find_any(self, key: Key, *, now: float) -> Entry | None:
        """What is held, whether or not it is proven to be the newest."""
        entry: Entry | None = self._memory.get(key, now=now)
        return entry

    def age(self, entry: Entry) -> float:
        """Seconds since an entry was last known to be the newest."""
        return max(self._lease.age(), boottime() - entry.superseded_at)

    def observe_version(self, key: Key, version: int, *, is_retired: bool = False) -> None:
        """Somebody saved this version: what is older is unproven from now on, or will not land; a retired one goes."""
        for flight in self._flights.get(key, ()):
            flight.heard = max(flight.heard, version)
        entry = self.find_any(key, now=0)
        if entry is None or entry.version >= version:
            return
        if is_retired:
            # Whatever was heard of since: what somebody took away is not given again.
            self._memory.drop(key)
        elif not entry.is_over:
            # It was last proven with the lease: the log was read before, and now it says more.
            entry.superseded_at = boottime() - self._lease.age()
            entry.end()

    def invalidate_type(self, name: str) -> None:
        """A type was changed: what is held of its configs goes, and nothing of them lands that is under way.

        It may not even stand in: perhaps it shows what is a secret from now on.
        """
        for key, flights in self._flights.items():
            if key.integration_type == name:
                for flight in flights:
                    flight.heard = sys.maxsize
        for held in [held for held in self._memory.names() if isinstance(held, Key) and held.integration_type == name]:
            self._memory.drop(held)

    def supersede_fills(self) -> None:
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

    def land(
        self, flight: Flight, key: Key, current: Current, *, rendering: Rendering
    ) -> list[PreparedResponse | None] | None:
        """Put what a flight brought in place and return its answers; None if it was overtaken on the way."""
        if current.version < flight.heard:
            return None
        self.observe_version(key, current.version)
        entry = self.find_any(key, now=0)
        if entry is not None and entry.version > current.version:
            return None
        if entry is not None and entry.is_over:
            entry = None
        is_missing = current.configuration is None
        has_answer = is_missing or (entry is not None and entry.answers[rendering] is not None)
        answer = None if has_answer else self._prepared(key, current, rendering)
        if entry is None:
            entry = Entry(key, current.version, is_missing=is_missing)
            self._memory.put(key, entry)
        entry.fresh_until = boottime() + (MISSING_SECONDS if is_missing else self._ttl_seconds)
        if answer is not None:
            entry.answers[rendering] = answer
            self._memory.grow(key, entry, answer.size)
        return entry.answers

    def _prepared(self, key: Key, current: Current, rendering: Rendering) -> PreparedResponse:
        shown = shown_as(current.configuration or b"", current.type, rendering)
        return self._prepare(
            DecryptedConfig(
                key,
                current.version,
                shown,
                is_masked=rendering.is_masked,
                type_version=current.type.tag_part,
                is_bare=rendering.is_bare,
            )
        )


def shown_as(configuration: bytes, type_: IntegrationType, rendering: Rendering) -> bytes:
    """The bytes of a configuration as somebody may see it."""
    is_filled = type_.has_defaults and not rendering.is_bare
    if not is_filled and not rendering.is_masked:
        return configuration
    shown = strict_json.read_stored(configuration)
    if is_filled:
        shown = type_.fill_defaults(shown)
    return strict_json.write(type_.mask(shown) if rendering.is_masked else shown)
