"""Integration types: what is in force for a config, and every act on types, for admins."""

from __future__ import annotations

from typing import Any

from confide.domain import bodies, types
from confide.domain.configs import Condition, Outcome
from confide.domain.errors import NotFound, TooManyRaces
from confide.domain.grants import Principal
from confide.domain.schemas import Schema
from confide.domain.types import IntegrationType, TypeDraft, TypeKind, TypeVersion
from confide.operations import SILENT, IoLog
from confide.ports import Clock, Sealer
from confide.service.access import Access
from confide.service.auditing import Auditor
from confide.service.lease import Lease, running_time
from confide.service.memory import Memory, Remembered
from confide.service.sharing import Shared
from confide.stores import News, Store

MOST_RACES = 64
# A type without a schema with its name; then its schema, compiled, by the bytes that it is written in.
TYPE_BYTES = 600
COMPILED_TIMES = 20


class HeldType(Remembered):
    """A type that was looked up."""

    __slots__ = ("type",)

    def __init__(self, found: TypeVersion | None) -> None:
        written = 0 if found is None or found.schema is None else len(bodies.write(found.schema))
        self.type = types.in_force(found)
        schema = self.type.schema
        super().__init__(TYPE_BYTES + COMPILED_TIMES * written + (schema.pattern_bytes if schema else 0))


class TypesInForce:
    """What each type is now: looked up once, compiled once, remembered under the same lease as configs."""

    def __init__(self, store: Store, memory: Memory[Any], lease: Lease, *, io: IoLog = SILENT) -> None:
        self._store = store
        self._memory = memory
        self._lease = lease
        self._heard = 0
        self._lookups: Shared[str, IntegrationType] = Shared(self._looked_up, io=io)

    async def of(self, name: str) -> IntegrationType:
        """What is in force; raises `Unreachable` if neither memory nor the store can say."""
        held: HeldType | None = self._memory.get(name, now=(now := running_time()))
        if held is not None and now < self._lease.until:
            return held.type
        return await self._lookups.get(name)

    def forget(self, name: str) -> None:
        self._heard += 1
        self._memory.drop(name)

    def overtake_all(self) -> None:
        """Let nothing be remembered that is being looked up now."""
        self._heard += 1

    async def _looked_up(self, name: str) -> IntegrationType:
        while True:
            heard = self._heard
            found = await self._store.types.read(name)
            if heard == self._heard:
                break  # otherwise something was heard of some type meanwhile, perhaps of this one
        held = HeldType(found)
        self._memory.put(name, held)
        return held.type


class Types:
    """Every act on types. Whoever has a grant that may cover a type sees it; only admins change it."""

    def __init__(
        self, store: Store, sealer: Sealer, *, access: Access, auditor: Auditor, news: News, clock: Clock, heard: Any
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._access = access
        self._auditor = auditor
        self._news = news
        self._clock = clock
        # Tells this process what it would otherwise hear from the log a moment later.
        self._heard = heard

    async def list(self, *, by: Principal) -> list[TypeVersion]:
        return [found for found in await self._store.types.all() if by.may_see_type(found.name)]

    async def read(self, name: str, *, by: Principal) -> TypeVersion:
        found = await self._store.types.read(name) if by.may_see_type(name) else None
        if found is None or found.kind is TypeKind.REMOVED:
            raise NotFound
        return found

    async def must_be_as_expected(self, name: str, *, condition: Condition) -> None:
        """Raises `VersionConflict` where a save under the condition would."""
        await self._current(name, condition=condition)

    async def put(self, draft: TypeDraft, *, by: Principal, condition: Condition) -> tuple[Outcome, int]:
        """Register a type or put another version of it in force; returns what it came to and its version."""
        await self._access.must_be_admin(by, action="put type")
        if draft.schema is not None:
            Schema(draft.schema)
        for _ in range(MOST_RACES):
            current = await self._current(draft.name, condition=condition)
            if current is not None and current.is_same(draft):
                return Outcome.UNCHANGED, current.version
            is_new = current is None or current.kind is TypeKind.REMOVED
            version = self._next(draft, current, TypeKind.SAVED, by=by)
            if await self._appended(version, action="put type", outcome="saved", by=by):
                return Outcome.CREATED if is_new else Outcome.UPDATED, version.version
        raise TooManyRaces(retry_after_seconds=1)

    async def remove(self, name: str, *, by: Principal, condition: Condition) -> int:
        """Let a type be as if it had never been registered; returns the version that says so."""
        await self._access.must_be_admin(by, action="remove type")
        for _ in range(MOST_RACES):
            current = await self._current(name, condition=condition)
            if current is None or current.kind is TypeKind.REMOVED:
                raise NotFound
            version = self._next(TypeDraft(name, None), current, TypeKind.REMOVED, by=by)
            if await self._appended(version, action="remove type", outcome="removed", by=by):
                return version.version
        raise TooManyRaces(retry_after_seconds=1)

    async def _current(self, name: str, *, condition: Condition) -> TypeVersion | None:
        current = await self._store.types.read(name)
        condition.must_hold(current.version if current is not None and current.kind is TypeKind.SAVED else None)
        return current

    def _next(self, draft: TypeDraft, current: TypeVersion | None, kind: TypeKind, *, by: Principal) -> TypeVersion:
        number = 1 if current is None else current.version + 1
        return TypeVersion(
            draft.name,
            number,
            kind,
            draft.schema,
            draft.mode,
            draft.keep,
            saved_by=by.user_id,
            saved_at=self._clock(),
            note=draft.note,
        )

    async def _appended(self, new: TypeVersion, *, action: str, outcome: str, by: Principal) -> bool:
        written = b"" if new.schema is None else bodies.write(new.schema)
        digest = self._sealer.mac("audit", b"%b %d %b" % (str(new.mode).encode(), new.keep, written))
        subject = f"type {new.name} version {new.version}"
        entry, mac = self._auditor.entry(action, outcome, by=by, subject=subject, digest=digest)
        if not await self._store.types.append(new, entry=entry, mac=mac):
            return False
        self._heard(new.name)
        self._news.tell()
        return True
