"""Reading current configs: from memory where it is proven, from the store otherwise, marked where neither can be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from confide.caching.lease import Lease
from confide.caching.memory import ORDER_SECONDS
from confide.caching.single_flight import SingleFlight
from confide.clock import boottime
from confide.configs.model import Kind, Superseded
from confide.errors import Busy, DatabaseUnavailable, NotFound
from confide.identity.model import Principal, Role
from confide.names import Key
from confide.reads.cache import Cache, Current, Entry, Rendering
from confide.reads.counters import ReadCounter, ReadCounts
from confide.reads.request import FROM_THE_STORE, ReadRequest
from confide.telemetry.operations import SILENT, IoLog

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


class ReadResult(NamedTuple):
    """An answer; if it is not proven to be the newest, with the seconds since it last was."""

    answer: Any
    stale_seconds: int | None = None


class ConfigReader:
    """Every read of a current config, for any caller that has a token."""

    def __init__(
        self,
        configs: ConfigStore,
        cache: Cache,
        authenticator: Authenticator,
        *,
        lease: Lease,
        opener: ConfigDecrypter,
        access: Access,
        types: ActiveIntegrationTypes,
        stale_seconds: float,
        sample: int = 0,
        io: IoLog = SILENT,
    ) -> None:
        self._sample = sample
        # Reads answered at once until one of them is noted; where none shall be, it is never zero.
        self.until_sample = sample or -1
        self._types = types
        self._configs = configs
        self._cache = cache
        self._principals = authenticator
        self._lease = lease
        self._opener = opener
        self._access = access
        self._stale_seconds = stale_seconds
        self._fills: SingleFlight[tuple[Key, Rendering], Any] = SingleFlight(self._filled, io=io)
        self._tally = ReadCounter()
        # What is kept hold of is kept for one second, which an object of its own stands for.
        self._second: object = None
        self._kept: list[ReadRequest] = []
        self._second_ends = 0.0
        # Plain integers; whoever tells of them compares with what they were.
        self.fills = 0
        self.from_memory = 0
        self.from_store = 0
        self.stale = 0

    def at_once(self, wanted: ReadRequest, *, now: float) -> Any:
        """The answer, if token, grant and config are held and proven at this moment, and counted; None otherwise."""
        if now >= self._lease.until:
            return None
        if now >= self._second_ends:
            self._let_go(now)
        answer: Any = wanted.answer
        if wanted.second is not self._second or answer.is_over or wanted.checked.is_over:  # type: ignore[union-attr]
            answer = self._held(wanted, now)
            if answer is None:
                return None
        if not wanted.reads:
            self._tally.note(wanted)
        wanted.reads += 1
        return answer

    def take(self) -> ReadCounts:
        """Take over what was answered at once since this was last done, and let go of what was kept hold of."""
        self._let_go(boottime())
        return self._tally.take()

    def is_sample(self) -> bool:
        """Count a read that was answered at once; whether it is one of those that are noted."""
        self.until_sample -= 1
        return not self.until_sample

    def begin_sample(self) -> None:
        self.until_sample = self._sample

    async def who(self, token_hash: bytes) -> tuple[Principal, bool]:
        """Who is asking, and whether the store could not be asked so that what was last known had to do.

        Raises `InvalidToken`, or `DatabaseUnavailable` if nothing is known either.
        """
        checked = self._principals.proven(token_hash, now=boottime())
        if checked is not None:
            return checked.principal, False
        can_stand_in = self._remembered(token_hash) is not None
        checked = await _patiently(self._principals.checked(token_hash), PATIENCE_SECONDS if can_stand_in else None)
        if checked is not None:
            return checked.principal, False
        # What is remembered now: something may have been heard of it while the store was asked.
        checked = self._remembered(token_hash)
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
        self._tally.note_one(principal.token_id, key)
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
            answer = await _patiently(self._asked(key, rendering, floor), seconds if entry else None)
            if answer is not None:
                self.from_store += 1
                return ReadResult(answer)
        # What is held now: something may have been heard of it while the store was asked.
        entry = self._stand_in(key, rendering, floor=floor)
        if entry is None:
            raise DatabaseUnavailable
        if self._lease.holds() and not is_away and not entry.is_over:
            return ReadResult(entry.answers[rendering])  # only its time was over: nothing newer was heard of
        self.stale += 1
        return ReadResult(entry.answers[rendering], max(1, int(self._cache.age(entry))))

    def is_past_stale(self) -> bool:
        """Whether nothing may be answered from memory any more."""
        return not self._lease.holds() and not self._may_be_stale()

    def _held(self, wanted: ReadRequest, now: float) -> Any:
        """Look up what is held, which also tells the memory that it is in use; keep hold of it for the second."""
        wanted.second = None
        if wanted.reads:
            self._tally.add_up()  # what was answered until now had other bytes
        checked = self._principals.proven(wanted.token_hash, now=now)
        entry = self._cache.proven(wanted.key, now=now)
        role = None if checked is None else checked.principal.role_on(wanted.key)
        if checked is None or entry is None or role is None or entry.version < wanted.floor:
            return None
        answer = entry.answers[rendering_for(role)]
        if answer is None:
            return None
        wanted.length, wanted.token_id = answer.length, checked.principal.token_id
        if min(entry.fresh_until, checked.fresh_until) >= self._second_ends:
            wanted.answer, wanted.checked, wanted.second = answer, checked, self._second
            self._kept.append(wanted)
        return answer

    def _let_go(self, now: float) -> None:
        """Begin another second: what was kept hold of may be forgotten, and is looked up again if it is wanted."""
        for wanted in self._kept:
            wanted.answer = wanted.checked = wanted.second = None
        self._kept.clear()
        self._second, self._second_ends = object(), now + ORDER_SECONDS

    def _stand_in(self, key: Key, rendering: Rendering, *, floor: int) -> Entry | None:
        """What may be given, marked, where the store cannot say what is newest."""
        entry = self._cache.unproven(key, now=boottime())
        if entry is None or entry.version < floor or entry.answers[rendering] is None:
            return None
        return entry if self._cache.age(entry) <= self._stale_seconds else None

    def _remembered(self, token_hash: bytes) -> AuthenticatedToken | None:
        return self._principals.unproven(token_hash, now=boottime()) if self._may_be_stale() else None

    def _may_be_stale(self) -> bool:
        return self._lease.age() <= self._stale_seconds

    async def _asked(self, key: Key, rendering: Rendering, floor: int) -> Any:
        if floor < FROM_THE_STORE:
            try:
                answer = await self._fills.get((key, rendering))
            except NotFound:
                if not floor:
                    raise
            else:
                if answer.version >= floor:
                    return answer
        # Alone: a fill that others began may have been sent before this caller came.
        return await self._filled((key, rendering))

    async def _filled(self, asked: tuple[Key, Rendering]) -> Any:
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
            opened = await self._opener.decrypt(stored, tenant_key)
        except Superseded:
            return None
        return Current(stored.version, opened, await self._types.of(key.integration_type))


def rendering_for(role: Role, *, is_bare: bool = False) -> Rendering:
    if role >= Role.READER:
        return Rendering.OPENED_BARE if is_bare else Rendering.OPENED
    return Rendering.MASKED_BARE if is_bare else Rendering.MASKED


async def _patiently(asking: Awaitable[T], seconds: float | None) -> T | None:
    """What is asked for; None if the store does not say it in that time, where there is something else to say."""
    if seconds is None:
        return await asking
    try:
        async with asyncio.timeout(seconds):
            return await asking
    except (DatabaseUnavailable, Busy, TimeoutError):
        return None
