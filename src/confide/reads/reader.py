"""Read current configs: from the cache while it is fresh, else from the database, else stale from the cache.

`ConfigReader.read_cached` answers a plain read from the caches, without waiting. Otherwise, and for all other reads,
the caller awaits `authenticate` and `read`, which may query the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from confide.caching.lease import Lease
from confide.caching.lru_cache import ORDER_SECONDS, CacheEntry
from confide.caching.single_flight import SingleFlight
from confide.caching.stamps import EVERYTHING, LATEST, Stamps, TakenStamps, order_memory_accesses
from confide.clock import read_boot_clock
from confide.configs.errors import Superseded
from confide.configs.model import Kind
from confide.context import current_request
from confide.crypto.errors import IntegrityBroken
from confide.errors import Busy, DatabaseUnavailable, NotFound
from confide.identity.model import Credential, Principal, Role, SecretsMode
from confide.names import ConfigKey
from confide.reads.cache import CachedConfig, ConfigCache
from confide.reads.model import CurrentConfig, Rendering
from confide.reads.plain_read import FORCE_REVALIDATION, ReadRequest
from confide.reads.response import NotModified, PreparedResponse, ReadResult
from confide.telemetry.io_log import NO_IO_LOG, IoLog

if TYPE_CHECKING:
    from confide.configs.decryption import ConfigDecrypter
    from confide.configs.store import ConfigStore
    from confide.fair_scheduler import FairScheduler
    from confide.identity.access import Access
    from confide.identity.authenticator import AuthenticatedToken, Authenticator
    from confide.integration_types.active import ActiveIntegrationTypes

T = TypeVar("T")

# How long a read waits for the database before it serves a stale response.
STALE_AFTER_SECONDS = 0.5
# A superseded entry is known to be outdated, so the database gets longer.
SUPERSEDED_STALE_AFTER_SECONDS = 1.2

# Validated responses are reused for this long. Each validation also marks the cache entries as recently used.
PERIOD_SECONDS = ORDER_SECONDS
# Each cached read has its own count. The counts are added up when this many cached reads have one.
MAX_UNCOUNTED = 512
# Memory of a cached request, with names, numbers and digest.
CACHED_REQUEST_BYTES = 730


@dataclass(slots=True)
class ReadCounts:
    """Reads of one process since the counts were last taken."""

    hits: int = 0
    not_modified: int = 0
    sent_bytes: int = 0
    # By token ID and key, for reads from the cache and from the database.
    reads: dict[tuple[int, ConfigKey], int] = field(default_factory=dict)


class SampledRead(NamedTuple):
    """A cached read to record as an I/O event."""

    user_id: int | None
    status: int
    sent_bytes: int


class Authentication(NamedTuple):
    """The caller of a request, and whether the database was unavailable, so that only the cache confirms the caller."""

    principal: Principal
    is_database_unavailable: bool


class CachedRequest(CacheEntry):
    """A plain read that repeats, with its validated response and its count. Only the reader writes to it."""

    __slots__ = (
        "count",
        "is_not_modified",
        "latest",
        "length",
        "period",
        "prepared",
        "request",
        "response",
        "token",
        "token_id",
    )

    def __init__(self, request: ReadRequest) -> None:
        super().__init__(CACHED_REQUEST_BYTES)
        self.request = request
        self.token: AuthenticatedToken | None = None
        self.token_id = 0
        self.prepared: PreparedResponse | None = None
        # The prepared response itself, or its 304 if the client has this version.
        self.response: PreparedResponse | NotModified | None = None
        # The period in which the response was validated.
        self.period: object = None
        # The latest change of any slot when its stamps were last compared.
        self.latest: object = None
        # Reads since the counts were last added up. All of them had this response.
        self.count = 0
        self.is_not_modified = False
        self.length = 0


class ConfigReader:
    """Reads current configs. It owns all state of cached requests.

    Time is divided into periods of one second. A new stamp of everything ends one early. A cached request is validated
    at its first use in a period. Until the period ends, its response is reused unless the version or the token is
    invalidated, or a stamp changes.
    """

    def __init__(
        self,
        configs: ConfigStore,
        cache: ConfigCache,
        authenticator: Authenticator,
        *,
        lease: Lease,
        stamps: Stamps,
        decrypter: ConfigDecrypter,
        access: Access,
        types: ActiveIntegrationTypes,
        scheduler: FairScheduler,
        max_stale_seconds: float,
        sample: int = 0,
        io: IoLog = NO_IO_LOG,
    ) -> None:
        self._configs = configs
        self._scheduler = scheduler
        self._cache = cache
        self._authenticator = authenticator
        self._lease = lease
        self._decrypter = decrypter
        self._access = access
        self._types = types
        self._max_stale_seconds = max_stale_seconds
        self._words = stamps.words
        self._queries: SingleFlight[tuple[ConfigKey, Rendering, TakenStamps], PreparedResponse] = SingleFlight(
            lambda shared: self._query(*shared[:2]), io=io
        )
        self._counts = ReadCounts()
        self._uncounted: list[CachedRequest] = []
        # A new object for each period. An identity check is the cheapest way to tell periods apart.
        self._period: object = None
        self._period_ends_at = 0.0
        # The stamp of everything when the period started.
        self._everything_stamp = 0
        # The latest change of any slot. Requests hold this object, and an identity check compares it.
        self._latest: object = None
        self._validated: list[CachedRequest] = []
        # Every `sample`-th cached read is recorded. The countdown never reaches zero if sampling is off.
        self._sample = sample
        self._until_sample = sample or -1
        # Set when a cached read was sampled. `take_sample` clears it.
        self.has_sample = False
        self._sampled = SampledRead(None, 0, 0)
        # Totals since the start of the process.
        self.cache_reads = 0
        self.database_reads = 0
        self.stale_reads = 0
        self.database_queries = 0

    def read_cached(self, cached: CachedRequest, *, now: float) -> PreparedResponse | NotModified | None:
        """Return the 200 or 304 response if token, grant and version are fresh in the cache, and count the read.

        Return None if the database must be queried. Check `has_sample` afterwards, before any await.
        """
        if now >= self._lease.expires_at:
            return None
        if now >= self._period_ends_at:
            self._start_period(now)
        if self._words[LATEST] != self._latest:
            self._observe_change(now)
        response = cached.response
        if (
            cached.period is not self._period
            or (cached.latest is not self._latest and not self._has_current_stamps(cached))
            or cached.prepared.is_invalid  # type: ignore[union-attr]
            or cached.token.is_invalid  # type: ignore[union-attr]
        ):
            response = self._validate(cached, now)
            if response is None:
                return None
        if not cached.count:
            self._start_counting(cached)
        cached.count += 1
        self._until_sample -= 1
        if not self._until_sample:
            self._sample_read(cached, response)
        return response

    async def authenticate_token(self, token: str) -> Authentication:
        """Authenticate with the text of a token. Raises `InvalidToken` if it is malformed."""
        return await self.authenticate(self._authenticator.parse(token))

    async def authenticate(self, credential: Credential) -> Authentication:
        """Find the principal of a token: in the cache, in the database, or stale in the cache if that fails.

        Raises `InvalidToken`, or `DatabaseUnavailable` if the token is not cached either.
        """
        token = self._authenticator.find_fresh(credential, now=read_boot_clock())
        if token is not None:
            return Authentication(token.principal, is_database_unavailable=False)
        has_stale = self._find_stale_token(credential) is not None
        token = await _await_within(
            STALE_AFTER_SECONDS if has_stale else None, self._authenticator.authenticate(credential)
        )
        if token is not None:
            return Authentication(token.principal, is_database_unavailable=False)
        # Look again: the token may have been revoked during the wait.
        token = self._find_stale_token(credential)
        if token is not None:
            return Authentication(token.principal, is_database_unavailable=True)
        if not has_stale:
            raise DatabaseUnavailable
        # The change feed dropped the token during the wait, so the database answers again.
        token = await self._authenticator.authenticate(credential)
        return Authentication(token.principal, is_database_unavailable=False)

    async def read(
        self,
        key: ConfigKey,
        *,
        principal: Principal,
        min_version: int = 0,
        has_defaults: bool = True,
        secrets: SecretsMode | None = None,
        is_database_unavailable: bool = False,
    ) -> ReadResult:
        """Read the current version: at least `min_version`, if that version exists. Viewers get secrets masked.

        With `is_database_unavailable`, a query of this request has just failed, so the database is not queried again.
        """
        result = await self._read(
            key,
            principal=principal,
            min_version=min_version,
            has_defaults=has_defaults,
            secrets=secrets,
            is_database_unavailable=is_database_unavailable,
        )
        counted = (principal.token_id, key)
        self._counts.reads[counted] = self._counts.reads.get(counted, 0) + 1
        return result

    def is_past_stale_limit(self) -> bool:
        """Return whether nothing may be served from the cache any more."""
        return not self._lease.is_valid() and not self._can_serve_stale()

    def take_counts(self) -> ReadCounts:
        """Return the counts since the last call and reset them."""
        self._start_period(read_boot_clock())
        self._add_up_counts()
        taken, self._counts = self._counts, ReadCounts()
        return taken

    def take_sample(self) -> SampledRead | None:
        """Return the sampled read that is not recorded yet, if there is one."""
        if not self.has_sample:
            return None
        self.has_sample = False
        return self._sampled

    def _observe_change(self, now: float) -> None:
        """Note that a slot has changed. Each request then compares its stamps once."""
        self._latest = self._words[LATEST]
        order_memory_accesses()
        if self._words[EVERYTHING] != self._everything_stamp:
            self._start_period(now)

    def _has_current_stamps(self, cached: CachedRequest) -> bool:
        """Compare the stamps of a request of this period after a change of any slot."""
        words, prepared, token = self._words, cached.prepared, cached.token
        if (
            prepared is None
            or token is None
            or words[prepared.config_slot] != prepared.config_stamp
            or words[prepared.type_slot] != prepared.type_stamp
            or words[token.slot] != token.stamp
        ):
            return False
        cached.latest = self._latest
        return True

    def _validate(self, cached: CachedRequest, now: float) -> PreparedResponse | NotModified | None:
        """Look up token and version in the caches, and choose the response to reuse until the period ends."""
        cached.period = None
        if cached.count:
            self._add_up_counts()  # the reads so far had another response
        request = cached.request
        token = self._authenticator.find_fresh(request.credential, now=now)
        entry = self._cache.find_fresh(request.key, now=now)
        role = None if token is None else token.principal.find_role(request.key)
        if token is None or entry is None or role is None or entry.version < request.min_version:
            return None
        prepared = entry.responses[choose_rendering(is_masked=role < Role.READER)]
        if prepared is None:
            return None
        response = prepared.to_not_modified() if prepared.is_known(request.known_tags) else prepared
        cached.token_id, cached.length = token.principal.token_id, response.length
        cached.is_not_modified = response is not prepared
        if min(entry.fresh_until, token.fresh_until) >= self._period_ends_at:
            cached.prepared, cached.response = prepared, response
            cached.token, cached.period, cached.latest = token, self._period, self._latest
            self._validated.append(cached)
        return response

    def _start_period(self, now: float) -> None:
        """Release the validated responses, so that they do not outlive their eviction from the cache."""
        for cached in self._validated:
            cached.prepared = cached.response = cached.token = cached.period = None
        self._validated.clear()
        self._period, self._period_ends_at = object(), now + PERIOD_SECONDS
        self._everything_stamp = self._words[EVERYTHING]

    def _start_counting(self, cached: CachedRequest) -> None:
        if len(self._uncounted) >= MAX_UNCOUNTED:
            self._add_up_counts()
        self._uncounted.append(cached)

    def _add_up_counts(self) -> None:
        counts = self._counts
        for cached in self._uncounted:
            counted = (cached.token_id, cached.request.key)
            counts.reads[counted] = counts.reads.get(counted, 0) + cached.count
            counts.hits += cached.count
            if cached.is_not_modified:
                counts.not_modified += cached.count
            else:
                counts.sent_bytes += cached.count * cached.length
            cached.count = 0
        self._uncounted.clear()

    def _sample_read(self, cached: CachedRequest, response: PreparedResponse | NotModified | None) -> None:
        self._until_sample = self._sample
        user_id = None if cached.token is None else cached.token.principal.user_id
        if response is not None:
            self._sampled = SampledRead(user_id, response.status, response.length)
            self.has_sample = True

    async def _read(
        self,
        key: ConfigKey,
        *,
        principal: Principal,
        min_version: int,
        has_defaults: bool,
        secrets: SecretsMode | None,
        is_database_unavailable: bool,
    ) -> ReadResult:
        is_masked = await self._access.require_secrets_mode(secrets, key, principal=principal, action="read")
        rendering = choose_rendering(is_masked=is_masked, has_defaults=has_defaults)
        entry = self._cache.find_fresh(key, now=read_boot_clock())
        if entry is not None and entry.version >= min_version:
            if entry.is_missing:
                raise NotFound
            if (response := entry.responses[rendering]) is not None:
                self.cache_reads += 1
                return ReadResult(response)
        has_stale = False
        if not is_database_unavailable:
            entry = self._find_stale(key, rendering, min_version=min_version)
            has_stale = entry is not None
            is_superseded = entry is not None and self._cache.is_superseded(entry)
            seconds = SUPERSEDED_STALE_AFTER_SECONDS if is_superseded else STALE_AFTER_SECONDS
            response = await _await_within(
                None if entry is None else seconds, self._read_from_database(key, rendering, min_version)
            )
            if response is not None:
                self.database_reads += 1
                return ReadResult(response)
        # Look again: the config may have been saved or deleted during the wait.
        entry = self._find_stale(key, rendering, min_version=min_version)
        response = None if entry is None else entry.responses[rendering]
        if entry is None or response is None:
            if not has_stale:
                raise DatabaseUnavailable
            # The change feed dropped the entry during the wait, so the database answers again.
            self.database_reads += 1
            return ReadResult(await self._query(key, rendering))
        if self._lease.is_valid() and not is_database_unavailable and not self._cache.is_superseded(entry):
            return ReadResult(response)  # only the time to live has passed; the change feed has no newer version
        self.stale_reads += 1
        return ReadResult(response, max(1, int(self._cache.compute_age_seconds(entry))))

    def _find_stale(self, key: ConfigKey, rendering: Rendering, *, min_version: int) -> CachedConfig | None:
        """Return the entry to serve if the database does not answer."""
        entry = self._cache.find_stale(key, now=read_boot_clock())
        if entry is None or entry.version < min_version or entry.responses[rendering] is None:
            return None
        return entry if self._cache.compute_age_seconds(entry) <= self._max_stale_seconds else None

    def _find_stale_token(self, credential: Credential) -> AuthenticatedToken | None:
        return (
            self._authenticator.find_unexpired(credential, now=read_boot_clock()) if self._can_serve_stale() else None
        )

    def _can_serve_stale(self) -> bool:
        return self._lease.compute_age_seconds() <= self._max_stale_seconds

    async def _read_from_database(self, key: ConfigKey, rendering: Rendering, min_version: int) -> PreparedResponse:
        """Share a query with other callers if its result is new enough. Otherwise run a query of its own.

        A query that began under other stamps may miss a save that was answered before this read.
        """
        stamps = self._cache.take_stamps(key)
        if min_version < FORCE_REVALIDATION and not stamps.is_in_doubt:
            try:
                response = await self._queries.get((key, rendering, stamps))
            except NotFound:
                if not min_version:
                    raise
            else:
                if response.version >= min_version:
                    return response
        # A shared query may have been sent before this request arrived.
        return await self._query(key, rendering)

    async def _query(self, key: ConfigKey, rendering: Rendering) -> PreparedResponse:
        """Query the database and cache the result. Query again if it is superseded on the way.

        Raises `IntegrityBroken` if the database returns an older version than the change feed had before.
        """
        self.database_queries += 1
        responses = None
        while responses is None:
            known = self._cache.find_known_version(key)
            with self._cache.begin_update(key) as update:
                current = await self._read_current(key)
                if current is not None:
                    current = await self._render(current, rendering)
                    still_known = self._cache.find_still_known_version(key, known)
                    try:
                        self._decrypter.require_not_older(key, current.version, known=still_known)
                    except IntegrityBroken:
                        self._cache.forget(key)
                        raise
                    responses = self._cache.complete_update(update, key, current, rendering=rendering)
        response = responses[rendering]
        if response is None:
            raise NotFound
        return response

    async def _render(self, current: CurrentConfig, rendering: Rendering) -> CurrentConfig:
        configuration, type_ = current.configuration, current.type
        if configuration is None or type_ is None:
            return current
        principal = current_request.get().principal
        caller = None if principal is None else principal.user_id
        rendered = await self._scheduler.run(
            partial(type_.render, configuration, rendering),
            caller=caller,
            size_bytes=len(configuration) if type_.schema is None else None,
        )
        return current._replace(rendered=rendered)

    async def _read_current(self, key: ConfigKey) -> CurrentConfig | None:
        """Read and decrypt the current version. None if it was replaced in between."""
        stored, data_key = await self._configs.read_with_data_key(key)
        if stored is None:
            return CurrentConfig(None)
        if stored.kind is Kind.DELETED:
            return CurrentConfig(stored)
        try:
            decrypted = await self._decrypter.decrypt(stored, data_key)
        except Superseded:
            return None
        return CurrentConfig(stored, decrypted, await self._types.get(key.integration_type))


def choose_rendering(*, is_masked: bool, has_defaults: bool = True) -> Rendering:
    if is_masked:
        return Rendering.MASKED if has_defaults else Rendering.MASKED_WITHOUT_DEFAULTS
    return Rendering.READABLE if has_defaults else Rendering.READABLE_WITHOUT_DEFAULTS


async def _await_within(seconds: float | None, work: Awaitable[T]) -> T | None:
    """Await a result. With a time limit, return None if the database is slower, unavailable or overloaded."""
    if seconds is None:
        return await work
    try:
        async with asyncio.timeout(seconds):
            return await work
    except (DatabaseUnavailable, Busy, TimeoutError):
        return None
