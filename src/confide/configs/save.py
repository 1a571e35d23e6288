"""Save, delete and list configs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from confide import strict_json
from confide.clock import MICROSECONDS_PER_SECOND, Clock
from confide.configs import diff
from confide.configs.decryption import ConfigDecrypter
from confide.configs.errors import IdempotencyKeyReused, TooManyRaces
from confide.configs.model import (
    ANY_CONFIG,
    Act,
    ConfigDraft,
    ConfigFilter,
    ConfigSummary,
    Deletion,
    IdempotencyKeyTaken,
    IdempotencyRecord,
    Kind,
    NewVersion,
    Outcome,
    Rollback,
    SavedVersion,
    SavePreview,
    Superseded,
)
from confide.configs.plan import SavePlan, SavePlanner, require_savable
from confide.configs.scan import build_scope_groups
from confide.crypto.errors import DecryptionFailed
from confide.crypto.model import EncryptionContext, WrappedKey
from confide.identity.model import Principal, Role, Scope
from confide.integration_types.model import UNTYPED
from confide.keyed_lock import KeyedLock
from confide.names import Key
from confide.preconditions import Precondition
from confide.reads.model import CurrentConfig, Rendering

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.changes.feed import ChangeFeed
    from confide.configs.store import ConfigStore
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.identity.access import Access
    from confide.integration_types.active import ActiveIntegrationTypes
    from confide.reads.cache import ConfigCache, PendingUpdate

MAX_RACES = 64
MAX_QUEUED = 1_000
REPLAY_SECONDS = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Retry:
    """The `Idempotency-Key` of a request and the content that a retry must repeat."""

    route: str
    name: str
    content: bytes = field(repr=False)


class ConfigWriter:
    """Saves, deletes and lists configs: checks the role, locks, plans and commits."""

    def __init__(
        self,
        configs: ConfigStore,
        encryption: EnvelopeEncryption,
        *,
        access: Access,
        recorder: AuditRecorder,
        decrypter: ConfigDecrypter,
        cache: ConfigCache,
        types: ActiveIntegrationTypes,
        change_feed: ChangeFeed,
        clock: Clock,
    ) -> None:
        self._configs = configs
        self._encryption = encryption
        self._access = access
        self._recorder = recorder
        self._decrypter = decrypter
        self._cache = cache
        self._types = types
        self._planner = SavePlanner(configs, decrypter=decrypter, cache=cache, types=types)
        self._change_feed = change_feed
        self._clock = clock
        self._locks: KeyedLock[Key] = KeyedLock(max_queued=MAX_QUEUED)

    async def list(
        self, scope: Scope, *, principal: Principal, after: Key | None, limit: int, more: ConfigFilter = ANY_CONFIG
    ) -> Sequence[ConfigSummary]:
        """List the configs in a scope that the principal can see, ordered by key, without bodies."""
        return await self._configs.list_page(build_scope_groups(scope, principal), after=after, limit=limit, more=more)

    async def save(
        self, draft: ConfigDraft, *, principal: Principal, precondition: Precondition, retry: Retry | None = None
    ) -> SavedVersion:
        """Save a draft as the next version, queued behind other saves of this config.

        Stores nothing if the precondition fails or the configuration is unchanged.
        """
        await self._access.require_role(Role.EDITOR, draft.key, principal=principal, action="save")
        require_savable(draft)
        return await self._run_locked(draft, principal=principal, precondition=precondition, retry=retry)

    async def roll_back(
        self, rollback: Rollback, *, principal: Principal, precondition: Precondition, retry: Retry | None = None
    ) -> SavedVersion:
        """Append the configuration of an older version as the next one; this also restores a deleted config.

        Raises `NotFound` if there is no such version or it is a tombstone, `VersionPruned` if its body was erased.
        """
        await self._access.require_role(Role.EDITOR, rollback.key, principal=principal, action="roll back")
        return await self._run_locked(rollback, principal=principal, precondition=precondition, retry=retry)

    async def delete(
        self, deletion: Deletion, *, principal: Principal, precondition: Precondition, retry: Retry | None = None
    ) -> SavedVersion:
        """Delete a config: append a tombstone, which keeps its history."""
        await self._access.require_role(Role.EDITOR, deletion.key, principal=principal, action="retire")
        return await self._run_locked(deletion, principal=principal, precondition=precondition, retry=retry)

    async def preview(
        self, act: ConfigDraft | Rollback, *, principal: Principal, precondition: Precondition
    ) -> SavePreview:
        """Preview a save or rollback without storing it; the preview itself is audited.

        An editor may read secrets, so the preview shows them, which counts as access to secrets.
        """
        await self._access.require_role(Role.EDITOR, act.key, principal=principal, action="try out")
        if isinstance(act, ConfigDraft):
            require_savable(act)
        for _ in range(MAX_RACES):
            try:
                plan = await self._planner.plan(act, precondition=precondition)
            except Superseded:
                continue
            before = {} if plan.before is None else strict_json.read_stored(plan.before)
            changes = diff.diff(before, plan.after)
            await self._recorder.record("reveal", "dry run", principal=principal, key=act.key, version=plan.number)
            return SavePreview(changes, plan.outcome, plan.version, plan.warnings)
        raise TooManyRaces(retry_after_seconds=1)

    async def delete_expired_idempotency_records(self) -> None:
        await self._configs.delete_idempotency_records(before=self._clock() - REPLAY_SECONDS * MICROSECONDS_PER_SECOND)

    async def _run_locked(
        self, act: Act, *, principal: Principal, precondition: Precondition, retry: Retry | None
    ) -> SavedVersion:
        key = act.key
        replay = None if retry is None else self._replay(retry, principal=principal)
        async with self._locks.acquire(key) as queue:
            await queue.back_off()
            for races_lost in range(MAX_RACES):
                began = time.monotonic()
                if replay and (replayed := await self._find_replay(replay, key)):
                    return replayed
                try:
                    # A change of the config or its type from here on keeps an older plan out of the cache.
                    with self._cache.begin_update(key) as update:
                        saved = await self._try_once(
                            act, principal=principal, precondition=precondition, replay=replay, update=update
                        )
                except IdempotencyKeyTaken:
                    # A concurrent retry stored it first, or an expired record blocks it.
                    await self.delete_expired_idempotency_records()
                    continue
                except Superseded:
                    continue
                queue.record_turn(saved.version, seconds=time.monotonic() - began, races_lost=races_lost)
                return saved
        raise TooManyRaces(retry_after_seconds=1)

    async def _try_once(
        self,
        act: Act,
        *,
        principal: Principal,
        precondition: Precondition,
        replay: IdempotencyRecord | None,
        update: PendingUpdate,
    ) -> SavedVersion:
        """Plan and commit once; raises `Superseded` after a lost race with another process or a destroyed data key."""
        if isinstance(act, Deletion):
            return await self._try_delete(
                act, principal=principal, precondition=precondition, replay=replay, update=update
            )
        plan = await self._planner.plan(act, precondition=precondition)
        if plan.outcome is Outcome.UNCHANGED:
            return await self._record_unchanged(act.key, plan, replay)
        key_id = await self._key_for_saving(act.key.tenant, plan.active)
        context = EncryptionContext(act.key, plan.version, Kind.SAVED)
        body = self._encryption.encrypt(plan.plain, context, key_id=key_id)
        new = NewVersion(
            act.key,
            plan.version,
            Kind.SAVED,
            key_id,
            body,
            saved_by=principal.user_id,
            saved_at=self._clock(),
            note=act.note,
        )
        action = "roll back" if isinstance(act, Rollback) else "save"
        return await self._append(
            new, plan.outcome, action=action, principal=principal, replay=replay, update=update, plan=plan
        )

    async def _key_for_saving(self, tenant: str, active: WrappedKey | None) -> bytes:
        try:
            return await self._encryption.load_data_key(tenant, active)
        except DecryptionFailed:
            # The data key was destroyed after it was read.
            raise Superseded from None

    async def _try_delete(
        self,
        deletion: Deletion,
        *,
        principal: Principal,
        precondition: Precondition,
        replay: IdempotencyRecord | None,
        update: PendingUpdate,
    ) -> SavedVersion:
        current = await self._planner.read_deletable(deletion.key, precondition=precondition)
        new = NewVersion(
            deletion.key,
            current.version + 1,
            Kind.DELETED,
            None,
            None,
            saved_by=principal.user_id,
            saved_at=self._clock(),
            note=deletion.note,
        )
        return await self._append(
            new, Outcome.DELETED, action="retire", principal=principal, replay=replay, update=update
        )

    async def _append(
        self,
        new: NewVersion,
        outcome: Outcome,
        *,
        action: str,
        principal: Principal,
        replay: IdempotencyRecord | None,
        update: PendingUpdate,
        plan: SavePlan | None = None,
    ) -> SavedVersion:
        plain, type_ = (None, UNTYPED) if plan is None else (plan.plain, plan.type)
        digest = None if plain is None else self._encryption.compute_mac("audit", plain)
        audit = self._recorder.sign(
            action, outcome, principal=principal, key=new.key, version=new.version, digest=digest
        )
        record = replay and replace(replay, version=new.version, outcome=outcome)
        await self._configs.append(new, audit=audit, idempotency=record)
        self._cache.complete_update(
            update, new.key, CurrentConfig(new.version, plain, type_), rendering=Rendering.READABLE
        )
        self._change_feed.notify()
        self._decrypter.mark_intact(new.key)
        warnings = () if plan is None else plan.warnings
        return SavedVersion(new.key, new.version, outcome, type_version=type_.tag_part, warnings=warnings)

    async def _record_unchanged(self, key: Key, plan: SavePlan, replay: IdempotencyRecord | None) -> SavedVersion:
        if replay is not None:
            record = replace(replay, version=plan.version, outcome=Outcome.UNCHANGED)
            await self._configs.insert_idempotency_record(record, saved_at=self._clock())
        return SavedVersion(key, plan.version, Outcome.UNCHANGED, type_version=plan.type.tag_part)

    def _replay(self, retry: Retry, *, principal: Principal) -> IdempotencyRecord:
        return IdempotencyRecord(
            principal.user_id, retry.route, retry.name, self._encryption.compute_mac("idempotency", retry.content)
        )

    async def _find_replay(self, replay: IdempotencyRecord, key: Key) -> SavedVersion | None:
        not_before = self._clock() - REPLAY_SECONDS * MICROSECONDS_PER_SECOND
        known = await self._configs.read_idempotency_record(replay, not_before=not_before)
        if known is None:
            return None
        if known.mac != replay.mac:
            raise IdempotencyKeyReused
        self._cache.observe_version(key, known.version, is_deleted=known.outcome is Outcome.DELETED)
        type_ = await self._types.get(key.integration_type)
        return SavedVersion(key, known.version, known.outcome, is_replayed=True, type_version=type_.tag_part)
