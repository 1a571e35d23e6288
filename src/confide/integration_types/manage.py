"""Manage integration types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide import strict_json
from confide.clock import Clock
from confide.configs.errors import TooManyRaces
from confide.configs.model import Outcome
from confide.epoch import CurrentEpoch, Epoch
from confide.errors import NotFound, VersionConflict
from confide.identity.model import Principal
from confide.integration_types.model import SavedType, TypeDraft, TypeKind, TypeVersion
from confide.integration_types.registration import compile_for_registration
from confide.preconditions import Precondition

if TYPE_CHECKING:
    from collections.abc import Callable

    from confide.audit.recorder import AuditRecorder
    from confide.changes.feed import ChangeFeed
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.identity.access import Access
    from confide.integration_types.store import IntegrationTypeStore

# A change that loses this many races against other processes fails.
MAX_RACES = 64
LOST_RACES = f"Other clients saved this integration type first, {MAX_RACES} times. Try again."


class IntegrationTypes:
    """Manages integration types. A caller sees the types that its grants cover. Only admins change types."""

    def __init__(
        self,
        types: IntegrationTypeStore,
        encryption: EnvelopeEncryption,
        *,
        access: Access,
        recorder: AuditRecorder,
        change_feed: ChangeFeed,
        epoch: CurrentEpoch,
        clock: Clock,
        on_change: Callable[[str], None],
    ) -> None:
        self._types = types
        self._encryption = encryption
        self._access = access
        self._recorder = recorder
        self._change_feed = change_feed
        self._epoch = epoch
        self._clock = clock
        # Updates the caches of this process before the change feed delivers the change.
        self._on_change = on_change

    async def list(self, *, principal: Principal) -> list[TypeVersion]:
        return [one for one in await self._types.list_all() if principal.can_see_type(one.name)]

    async def read(self, name: str, *, principal: Principal) -> TypeVersion:
        current = await self._types.read(name) if principal.can_see_type(name) else None
        if current is None or current.kind is TypeKind.REMOVED:
            raise NotFound
        return current

    async def require_precondition(self, name: str, *, precondition: Precondition) -> None:
        """Raise `VersionConflict` unless the precondition matches the current version."""
        await self._read_current(name, precondition=precondition, epoch=self._epoch.value)

    async def save(self, draft: TypeDraft, *, principal: Principal, precondition: Precondition) -> SavedType:
        """Register an integration type, or append a version of it. Store nothing if it is unchanged."""
        await self._access.require_admin(principal, action="put type")
        warnings = () if draft.schema is None else compile_for_registration(draft.schema).warnings
        for _ in range(MAX_RACES):
            epoch = self._epoch.value
            current = await self._read_current(draft.name, precondition=precondition, epoch=epoch)
            if current is not None and current.has_same_settings(draft):
                await self._types.confirm(draft.name)
                return SavedType(Outcome.UNCHANGED, current.version, epoch, warnings)
            is_new = current is None or current.kind is TypeKind.REMOVED
            version = self._build_next_version(draft, current, TypeKind.SAVED, principal=principal)
            if await self._append(version, action="put type", outcome="saved", principal=principal, epoch=epoch):
                return SavedType(Outcome.CREATED if is_new else Outcome.UPDATED, version.version, epoch, warnings)
        raise TooManyRaces(LOST_RACES, retry_after_seconds=1)

    async def remove(self, name: str, *, principal: Principal, precondition: Precondition) -> int:
        """Remove an integration type. Return the version of its tombstone."""
        await self._access.require_admin(principal, action="remove type")
        for _ in range(MAX_RACES):
            epoch = self._epoch.value
            current = await self._read_current(name, precondition=precondition, epoch=epoch)
            if current is None or current.kind is TypeKind.REMOVED:
                await self._types.confirm(name)
                raise NotFound
            version = self._build_next_version(TypeDraft(name, None), current, TypeKind.REMOVED, principal=principal)
            if await self._append(version, action="remove type", outcome="removed", principal=principal, epoch=epoch):
                return version.version
        raise TooManyRaces(LOST_RACES, retry_after_seconds=1)

    async def _read_current(self, name: str, *, precondition: Precondition, epoch: Epoch) -> TypeVersion | None:
        current = await self._types.read(name)
        is_saved = current is not None and current.kind is TypeKind.SAVED
        try:
            precondition.require_match(current.version if current is not None and is_saved else None, epoch=epoch)
        except VersionConflict:
            await self._types.confirm(name)
            raise
        return current

    def _build_next_version(
        self, draft: TypeDraft, current: TypeVersion | None, kind: TypeKind, *, principal: Principal
    ) -> TypeVersion:
        number = 1 if current is None else current.version + 1
        return TypeVersion(
            draft.name,
            number,
            kind,
            draft.schema,
            draft.mode,
            draft.keep,
            saved_by=principal.user_id,
            saved_at=self._clock(),
            note=draft.note,
        )

    async def _append(self, new: TypeVersion, *, action: str, outcome: str, principal: Principal, epoch: Epoch) -> bool:
        schema_bytes = b"" if new.schema is None else strict_json.write(new.schema)
        digest = self._encryption.compute_mac("audit", b"%b %d %b" % (str(new.mode).encode(), new.keep, schema_bytes))
        subject = f"type {new.name} version {new.version}"
        audit = self._recorder.sign(action, outcome, principal=principal, subject=subject, digest=digest)
        if not await self._types.append(new, audit=audit, epoch=epoch):
            return False
        self._on_change(new.name)
        self._change_feed.notify()
        return True
