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
# The size of an entry without its key and responses.
ENTRY_BYTES = 240


class Entry(MemoryEntry):
    """One version of one config, with a response for each requested rendering. None if the config is missing."""

    __slots__ = ("answers", "fresh_until", "is_missing", "superseded_at", "version")

    def __init__(self, key: Key, version: int, *, is_missing: bool) -> None:
        super().__init__(ENTRY_BYTES + sum(map(sys.getsizeof, (key, *key, version))))
        self.version = version
        # When the entry was last proven fresh, once a newer version is known. It may then only be served as stale.
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
    """A fill or a save in progress that will bring a version of a key."""

    __slots__ = ("newest_version",)

    def __init__(self) -> None:
        self.newest_version = 0


class Cache:
    """Cached responses for keys, served as fresh only while the lease proves them.

    A newer version in the change feed marks the entry as superseded. A version newer than the one that a flight brings
    keeps that one out of the cache. So an older version never replaces a newer one.
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
        """Return the entry if it is proven fresh, even if the config is missing."""
        entry = self.find_any(key, now=now)
        if entry is None or now >= self._lease.until or now >= entry.fresh_until or entry.is_over:
            return None
        return entry

    def find_any(self, key: Key, *, now: float) -> Entry | None:
        """Return the entry, whether or not it is fresh."""
        entry: Entry | None = self._memory.get(key, now=now)
        return entry

    def age(self, entry: Entry) -> float:
        """Return the seconds since an entry was last proven fresh."""
        return max(self._lease.age(), boottime() - entry.superseded_at)

    def observe_version(self, key: Key, version: int, *, is_deleted: bool = False) -> None:
        """Record that a version was saved. Older entries are superseded, and older flights do not land.

        The entry of a deleted config is removed: deleted content is not served, not even as stale.
        """
        for flight in self._flights.get(key, ()):
            flight.newest_version = max(flight.newest_version, version)
        entry = self.find_any(key, now=0)
        if entry is None or entry.version >= version:
            return
        if is_deleted:
            self._memory.drop(key)
        elif not entry.is_over:
            # The previous read of the change feed, which the lease dates, still proved it.
            entry.superseded_at = boottime() - self._lease.age()
            entry.end()

    def invalidate_type(self, name: str) -> None:
        """Remove all entries of a changed integration type, and keep flights of its configs out of the cache.

        They are not served as stale either: the new schema may mark a visible member as a secret.
        """
        for key, flights in self._flights.items():
            if key.integration_type == name:
                for flight in flights:
                    flight.newest_version = sys.maxsize
        for held in [held for held in self._memory.names() if isinstance(held, Key) and held.integration_type == name]:
            self._memory.drop(held)

    def supersede_fills(self) -> None:
        """Keep all current flights out of the cache."""
        for flights in self._flights.values():
            for flight in flights:
                flight.newest_version = sys.maxsize

    @contextmanager
    def flight(self, key: Key) -> Iterator[Flight]:
        """Register a fill before its query, or a save before its commit."""
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
        """Store the version of a flight and return its responses. None if a newer version is known."""
        if current.version < flight.newest_version:
            return None
        self.observe_version(key, current.version)
        entry = self.find_any(key, now=0)
        if entry is not None and entry.version > current.version:
            return None
        if entry is not None and entry.is_over:
            entry = None
        is_missing = current.configuration is None
        has_answer = is_missing or (entry is not None and entry.answers[rendering] is not None)
        answer = None if has_answer else self._prepare_response(key, current, rendering)
        if entry is None:
            entry = Entry(key, current.version, is_missing=is_missing)
            self._memory.put(key, entry)
        entry.fresh_until = boottime() + (MISSING_SECONDS if is_missing else self._ttl_seconds)
        if answer is not None:
            entry.answers[rendering] = answer
            self._memory.grow(key, entry, answer.size)
        return entry.answers

    def _prepare_response(self, key: Key, current: Current, rendering: Rendering) -> PreparedResponse:
        document = render_configuration(current.configuration or b"", current.type, rendering)
        return self._prepare(
            DecryptedConfig(
                key,
                current.version,
                document,
                is_masked=rendering.is_masked,
                type_version=current.type.tag_part,
                is_bare=rendering.is_bare,
            )
        )


def render_configuration(configuration: bytes, type_: IntegrationType, rendering: Rendering) -> bytes:
    """Return a configuration in the form of a rendering."""
    is_filled = type_.has_defaults and not rendering.is_bare
    if not is_filled and not rendering.is_masked:
        return configuration
    document = strict_json.read_stored(configuration)
    if is_filled:
        document = type_.fill_defaults(document)
    return strict_json.write(type_.mask(document) if rendering.is_masked else document)
