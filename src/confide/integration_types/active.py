"""Find the active version of an integration type. Compiled types are cached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confide import strict_json
from confide.caching.lease import Lease
from confide.caching.lru_cache import CacheEntry, LruCache
from confide.caching.single_flight import SingleFlight
from confide.caching.stamps import EVERYTHING, Stamps, TakenStamps, find_type_slot
from confide.clock import read_boot_clock
from confide.integration_types import masking
from confide.integration_types.compiled import IntegrationType, compile_type
from confide.integration_types.model import TypeVersion
from confide.strict_json import Json
from confide.telemetry.io_log import NO_IO_LOG, IoLog

if TYPE_CHECKING:
    from confide.integration_types.store import IntegrationTypeStore

# Estimated memory of a type: a fixed part, and a compiled schema as a multiple of its JSON text.
TYPE_BYTES = 800
COMPILED_BYTES_PER_BYTE = 20


class CachedType(CacheEntry):
    """A compiled integration type in the cache."""

    __slots__ = ("stamps", "type")

    def __init__(self, found: TypeVersion | None, stamps: TakenStamps) -> None:
        self.stamps = stamps
        schema_bytes = 0 if found is None or found.schema is None else len(strict_json.write(found.schema))
        self.type = compile_type(found)
        schema = self.type.schema
        super().__init__(TYPE_BYTES + COMPILED_BYTES_PER_BYTE * schema_bytes + (schema.pattern_bytes if schema else 0))


class ActiveIntegrationTypes:
    """Reads, compiles and caches active integration types, under the same lease and stamps as configs."""

    def __init__(
        self, types: IntegrationTypeStore, memory: LruCache[Any], lease: Lease, stamps: Stamps, *, io: IoLog = NO_IO_LOG
    ) -> None:
        self._stamps = stamps
        self._types = types
        self._memory = memory
        self._lease = lease
        # Counts invalidations, so that a lookup notices one that happened meanwhile.
        self._invalidations = 0
        self._lookups: SingleFlight[tuple[str, TakenStamps], IntegrationType] = SingleFlight(
            lambda shared: self._look_up(shared[0]), io=io
        )

    async def get(self, name: str) -> IntegrationType:
        """Return the active version of a type. Raises `DatabaseUnavailable` if it is not in the cache."""
        cached: CachedType | None = self._memory.get(name, now=(now := read_boot_clock()))
        if cached is not None and now < self._lease.expires_at and self._stamps.is_unchanged(cached.stamps):
            return cached.type
        stamps = self._take_stamps(name)
        return await (self._look_up(name) if stamps.is_in_doubt else self._lookups.get((name, stamps)))

    @staticmethod
    def require_no_mask(configuration: Json) -> None:
        """Raise `MaskSentBack` if a value is the mask, for any integration type."""
        masking.require_no_mask(configuration)

    def forget(self, name: str) -> None:
        self._invalidations += 1
        self._memory.drop(name)

    def discard_pending(self) -> None:
        """Discard the result of every lookup that is in progress."""
        self._invalidations += 1

    async def _look_up(self, name: str) -> IntegrationType:
        while True:
            invalidations, stamps = self._invalidations, self._take_stamps(name)
            found = await self._types.read(name)
            if invalidations == self._invalidations:
                break  # otherwise a type changed during the lookup, perhaps this one
        cached = CachedType(found, stamps)
        if self._stamps.is_current(stamps):
            self._memory.put(name, cached)
        return cached.type

    def _take_stamps(self, name: str) -> TakenStamps:
        return self._stamps.take(find_type_slot(name), EVERYTHING)
