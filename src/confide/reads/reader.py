"""Read current configs: from the cache while it is fresh, else from the database, else stale."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from confide.caching.lease import Lease
from confide.caching.memory import ORDER_SECONDS, MemoryEntry
from confide.caching.single_flight import SingleFlight
from confide.clock import boottime
from confide.configs.model import Kind, Superseded
from confide.errors import Busy, DatabaseUnavailable, NotFound
from confide.identity.model import Credential, Principal, Role
from confide.names import Key
from confide.reads.cache import Cache, Entry
from confide.reads.model import Current, Rendering
from confide.reads.request import FORCE_REVALIDATION, ReadRequest
from confide.reads.response import CachedResponse, PreparedResponse, ReadResult
from confide.telemetry.io_log import NO_IO_LOG, IoLog

if TYPE_CHECKING:
    from confide.configs.decryption import ConfigDecrypter
    from confide.configs.store import ConfigStore
    from confide.identity.access import Access
    from confide.identity.authenticator import AuthenticatedToken, Authenticator
    from confide.integration_types.active import ActiveIntegrationTypes

T = TypeVar("T")

# How long the store may take before what is held, and no longer proven, is given instead.
PATIENCE_SECONDS = 0.5
LONG_PATIENCE_SECONDS = 1.2


# Counts are kept on the records of cached reads and added up after this many records.
MAX_UNCOUNTED = 512
# Memory of a cached read and its request, with names, numbers and digest.
CACHED_READ_BYTES = 720


@dataclass(slots=True)
class ReadCounts:
    """Reads counted by one process."""

    hits: int = 0
    not_modified: int = 0
    sent_bytes: int = 0
    # By token ID and key, for reads from the cache and from the database.
    reads: dict[tuple[int, Key], int] = field(default_factory=dict)


class SampledRead(NamedTuple):
    """A cached read to record as an I/O event."""

    user_id: int | None
    status: int
    sent_bytes: int


class CachedRead(MemoryEntry):
    """A request with its last response and its counts. Only the reader writes to it.

    The response is valid until the reader's next period while neither the version nor the token is invalidated.
    """

    __slots__ = ("is_not_modified", "length", "period", "prepared", "reads", "request", "response", "token", "token_id")

    def __init__(self, request: ReadRequest) -> None:
        super().__init__(CACHED_READ_BYTES)
        self.request = request
        self.token: AuthenticatedToken | None = None
        self.token_id = 0
        self.prepared: PreparedResponse | None = None
        # The prepared response itself, or its 304 if the client knows the version.
        self.response: CachedResponse | None = None
        self.period: object = None
        # Reads since the counts were last added up; all of them had this response.
        self.reads = 0
        self.is_not_modified = False
        self.length = 0


class ConfigReader:
    """Serve current configs and own all state of cached reads."""

    def __init__(
        self,
        configs: ConfigStore,
        cache: Cache,
        authenticator: Authenticator,
        *,
        lease: Lease,
        decrypter: ConfigDecrypter,
        access: Access,
        types: ActiveIntegrationTypes,
        stale_seconds: float,
        sample: int = 0,
        io: IoLog = NO_IO_LOG,
    ) -> None:
        self._sample = sample
        # Never reaches zero if sampling is off.
        self._until_sample = sample or -1
        # Set when a cached read is due to be recorded; `take_sample` clears it.
        self.has_sample = False
        self._sampled = SampledRead(None, 0, 0)
        self._types = types
        self._configs = configs
        self._cache = cache
        self._principals = authenticator
        self._lease = lease
        self._decrypter = decrypter
        self._access = access
        self._stale_seconds = stale_seconds
        self._fills: SingleFlight[tuple[Key, Rendering], Any] = SingleFlight(self._fill, io=io)
        self._counts = ReadCounts()
        self._uncounted: list[CachedRead] = []
        # Validated responses are reused until the period ends. An object identifies the period.
        self._period: object = None
        self._period_ends = 0.0
        self._validated: list[CachedRead] = []
        # Totals since the start of the process.
        self.fills = 0
        self.from_memory = 0
        self.from_store = 0
        self.stale = 0

    def answer_at_once(self, read: CachedRead, *, now: float) -> CachedResponse | None:
        """Return the 200 or 304 response if token, grant and version are fresh in the cache, and count it.

        Return None if the database must be asked. Check `has_sample` afterwards, before any await.
        """
        if now >= self._lease.until:
            return None
        if now >= self._period_ends:
            self._start_period(now)
        response = read.response
        if read.period is not self._period or read.prepared.is_over or read.token.is_over:  # type: ignore[union-attr]
            response = self._validate(read, now)
            if response is None:
                return None
        if not read.reads:
            self._begin_counting(read)
        read.reads += 1
        self._until_sample -= 1
        if not self._until_sample:
            self._sample_read(read, response)
        return response

    def take_counts(self) -> ReadCounts:
        """Return the counts since the last call and reset them."""
        self._start_period(boottime())
        self._add_up()
        taken, self._counts = self._counts, ReadCounts()
        return taken

    def take_sample(self) -> SampledRead | None:
        """Return the cached read that is due to be recorded, if there is one."""
        if not self.has_sample:
            return None
        self.has_sample = False
        return self._sampled

    async def who(self, credential: Credential) -> tuple[Principal, bool]:
        """Who is asking, and whether the store could not be asked so that what was last known had to do.

        Raises `InvalidToken`, or `DatabaseUnavailable` if nothing is known either.
        """
        checked = self._principals.find_fresh(credential, now=boottime())
        if checked is not None:
            return checked.principal, False
        can_stand_in = self._remembered(credential) is not None
        checked = await _wait_patiently(
            self._principals.authenticate(credential), PATIENCE_SECONDS if can_stand_in else None
        )
        if checked is not None:
            return checked.principal, False
        # What is remembered now: something may have been heard of it while the store was asked.
        checked = self._remembered(credential)
        if checked is None:
            raise DatabaseUnavailable
        return checked.principal, True

    async def read(
        self, key: Key, *, principal: Principal, floor: int = 0, is_bare: bool = False, is_away: bool = False
    ) -> ReadResult:
        """Read the current version, at least `floor` if there is one; whose role is viewer sees secrets masked.

        With `is_bare` without its type's defaults; with `is_away`, where the store has just been asked in vain, it
        is not asked again.
        """
        found = await self._found(key, principal=principal, floor=floor, is_bare=is_bare, is_away=is_away)
        counted = (principal.token_id, key)
        self._counts.reads[counted] = self._counts.reads.get(counted, 0) + 1
        return found

    async def _found(self, key: Key, *, principal: Principal, floor: int, is_bare: bool, is_away: bool) -> ReadResult:
        role = await self._access.require_role(Role.VIEWER, key, principal=principal, action="read")
        rendering = rendering_for(role, is_bare=is_bare)
        now = boottime()
        entry = self._cache.proven(key, now=now)
        if entry is not None and entry.version >= floor:
            if entry.is_missing:
                raise NotFound
            if (answer := entry.answers[rendering]) is not None:
                self.from_memory += 1
                return ReadResult(answer)
        entry = self._stand_in(key, rendering, floor=floor)
        if not is_away:
            # What is known to be overtaken is worth less: the store gets longer to say what is newest.
            seconds = PATIENCE_SECONDS if entry is None or not entry.is_over else LONG_PATIENCE_SECONDS
            answer = await _wait_patiently(self._asked(key, rendering, floor), seconds if entry else None)
            if answer is not None:
                self.from_store += 1
                return ReadResult(answer)
        # What is held now: something may have been heard of it while the store was asked.
        entry = self._stand_in(key, rendering, floor=floor)
        response = None if entry is None else entry.answers[rendering]
        if entry is None or response is None:
            raise DatabaseUnavailable
        if self._lease.holds() and not is_away and not entry.is_over:
            return ReadResult(response)  # only its time was over: nothing newer was heard of
        self.stale += 1
        return ReadResult(response, max(1, int(self._cache.age(entry))))

    def is_past_stale(self) -> bool:
        """Whether nothing may be answered from memory any more."""
        return not self._lease.holds() and not self._may_be_stale()

    def _validate(self, read: CachedRead, now: float) -> CachedResponse | None:
        """Look up token and version, and choose the response to reuse until the period ends."""
        read.period = None
        if read.reads:
            self._add_up()  # the reads so far had another response
        request = read.request
        token = self._principals.find_fresh(request.credential, now=now)
        entry = self._cache.proven(request.key, now=now)
        role = None if token is None else token.principal.find_role(request.key)
        if token is None or entry is None or role is None or entry.version < request.min_version:
            return None
        prepared = entry.answers[rendering_for(role)]
        if prepared is None:
            return None
        response = prepared.to_not_modified() if prepared.is_known(request.known_tags) else prepared
        read.token_id, read.length = token.principal.token_id, response.length
        read.is_not_modified = response is not prepared
        if min(entry.fresh_until, token.fresh_until) >= self._period_ends:
            read.prepared, read.response = prepared, response
            read.token, read.period = token, self._period
            self._validated.append(read)
        return response

    def _start_period(self, now: float) -> None:
        """Release the validated responses: they may have been evicted from the cache meanwhile."""
        for read in self._validated:
            read.prepared = read.response = read.token = read.period = None
        self._validated.clear()
        self._period, self._period_ends = object(), now + ORDER_SECONDS

    def _begin_counting(self, read: CachedRead) -> None:
        if len(self._uncounted) >= MAX_UNCOUNTED:
            self._add_up()
        self._uncounted.append(read)

    def _add_up(self) -> None:
        counts = self._counts
        for read in self._uncounted:
            counted = (read.token_id, read.request.key)
            counts.reads[counted] = counts.reads.get(counted, 0) + read.reads
            counts.hits += read.reads
            if read.is_not_modified:
                counts.not_modified += read.reads
            else:
                counts.sent_bytes += read.reads * read.length
            read.reads = 0
        self._uncounted.clear()

    def _sample_read(self, read: CachedRead, response: CachedResponse | None) -> None:
        self._until_sample = self._sample
        user_id = None if read.token is None else read.token.principal.user_id
        if response is not None:
            self._sampled = SampledRead(user_id, response.status, response.length)
            self.has_sample = True

    def _stand_in(self, key: Key, rendering: Rendering, *, floor: int) -> Entry | None:
        """What may be given, marked, where the store cannot say what is newest."""
        entry = self._cache.find_any(key, now=boottime())
        if entry is None or entry.version < floor or entry.answers[rendering] is None:
            return None
        return entry if self._cache.age(entry) <= self._stale_seconds else None

    def _remembered(self, credential: Credential) -> AuthenticatedToken | None:
        return self._principals.find_any(credential, now=boottime()) if self._may_be_stale() else None

    def _may_be_stale(self) -> bool:
        return self._lease.age() <= self._stale_seconds

    async def _asked(self, key: Key, rendering: Rendering, floor: int) -> Any:
        if floor < FORCE_REVALIDATION:
            try:
                answer = await self._fills.get((key, rendering))
            except NotFound:
                if not floor:
                    raise
            else:
                if answer.version >= floor:
                    return answer
        # Alone: a fill that others began may have been sent before this caller came.
        return await self._fill((key, rendering))

    async def _fill(self, asked: tuple[Key, Rendering]) -> Any:
        key, rendering = asked
        self.fills += 1
        while True:
            with self._cache.flight(key) as flight:
                current = await self._current(key)
                answers = None if current is None else self._cache.land(flight, key, current, rendering=rendering)
            if answers is not None:
                break
        if answers[rendering] is None:
            raise NotFound
        return answers[rendering]

    async def _current(self, key: Key) -> Current | None:
        """What the store holds now; None if it was replaced while it was opened."""
        stored, tenant_key = await self._configs.read_with_key(key)
        if stored is None:
            return Current(0, None)
        if stored.kind is Kind.DELETED:
            return Current(stored.version, None)
        try:
            opened = await self._decrypter.decrypt(stored, tenant_key)
        except Superseded:
            return None
        return Current(stored.version, opened, await self._types.get(key.integration_type))


def rendering_for(role: Role, *, is_bare: bool = False) -> Rendering:
    if role >= Role.READER:
        return Rendering.OPENED_BARE if is_bare else Rendering.OPENED
    return Rendering.MASKED_BARE if is_bare else Rendering.MASKED


async def _wait_patiently(asking: Awaitable[T], seconds: float | None) -> T | None:
    """What is asked for; None if the store does not say it in that time, where there is something else to say."""
    if seconds is None:
        return await asking
    try:
        async with asyncio.timeout(seconds):
            return await asking
    except (DatabaseUnavailable, Busy, TimeoutError):
        return None
