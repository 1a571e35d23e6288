"""The active version of each integration type, compiled and cached."""

from __future__ import annotations

from typing import Any

from confide import strict_json
from confide.caching.lease import Lease
from confide.caching.memory import BoundedMemory, MemoryEntry
from confide.caching.single_flight import SingleFlight
from confide.clock import boottime
from confide.integration_types import model
from confide.integration_types.model import IntegrationType, TypeVersion
from confide.server.stores import Store
from confide.telemetry.operations import SILENT, IoLog

# A type without a schema with its name; then its schema, compiled, by the bytes that it is written in.
TYPE_BYTES = 600


COMPILED_TIMES = 20


class CachedType(MemoryEntry):
    """A type that was looked up."""

    __slots__ = ("type",)

    def __init__(self, found: TypeVersion | None) -> None:
        written = 0 if found is None or found.schema is None else len(strict_json.write(found.schema))
        self.type = model.in_force(found)
        schema = self.type.schema
        super().__init__(TYPE_BYTES + COMPILED_TIMES * written + (schema.pattern_bytes if schema else 0))


class ActiveIntegrationTypes:
    """What each type is now: looked up once, compiled once, remembered under the same lease as configs."""

    def __init__(self, store: Store, memory: BoundedMemory[Any], lease: Lease, *, io: IoLog = SILENT) -> None:
        self._store = store
        self._memory = memory
        self._lease = lease
        self._heard = 0
        self._lookups: SingleFlight[str, IntegrationType] = SingleFlight(self._looked_up, io=io)

    async def of(self, name: str) -> IntegrationType:
        """What is in force; raises `DatabaseUnavailable` if neither memory nor the store can say."""
        held: CachedType | None = self._memory.get(name, now=(now := boottime()))
        if held is not None and now < self._lease.until:
            return held.type
        return await self._lookups.get(name)

    def forget(self, name: str) -> None:
        self._heard += 1
        self._memory.drop(name)

    def supersede_all(self) -> None:
        """Let nothing be remembered that is being looked up now."""
        self._heard += 1

    async def _looked_up(self, name: str) -> IntegrationType:
        while True:
            heard = self._heard
            found = await self._store.types.read(name)
            if heard == self._heard:
                break  # otherwise something was heard of some type meanwhile, perhaps of this one
        held = CachedType(found)
        self._memory.put(name, held)
        return held.type
