"""Save, roll back and delete configs, and preview a save."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from confide import strict_json
from confide.clock import MICROSECONDS_PER_SECOND, Clock
from confide.configs import diff
from confide.configs.decryption import ConfigDecrypter
from confide.configs.errors import IdempotencyKeyReused, IdempotencyKeyTaken, Superseded, TooManyRaces
from confide.configs.model import (
    ConfigDraft,
    Deletion,
    IdempotencyRecord,
    Kind,
    NewVersion,
    Outcome,
    Rollback,
    SavedVersion,
    SavePreview,
    WriteRequest,
)
from confide.configs.plan import SavePlan, SavePlanBuilder
from confide.configs.save_queue import SaveQueue
from confide.crypto.errors import DecryptionFailed, IntegrityBroken
from confide.crypto.model import EncryptionContext, WrappedKey
from confide.epoch import CurrentEpoch, Epoch
from confide.errors import NotFound, VersionConflict
from confide.identity.model import Principal, Role, SecretsMode
from confide.keyed_lock import KeyedLock
from confide.names import ConfigKey
from confide.preconditions import Precondition
from confide.reads.model import CurrentConfig, Rendering
from confide.strict_json import Json

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.changes.feed import ChangeFeed
    from confide.configs.store import ConfigStore
    from confide.crypto.envelope import EnvelopeEncryption
    from confide.fair_scheduler import FairScheduler
    from confide.identity.access import Access
    from confide.integration_types.active import ActiveIntegrationTypes
    from confide.reads.cache import ConfigCache, PendingUpdate

# A save that loses this many races against other processes fails.
MAX_RACES = 64
# The number of saves that can wait for the lock of one config.
MAX_QUEUED = 1_000
# A retry within this time gets the outcome of the first request.
IDEMPOTENCY_SECONDS = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The `Idempotency-Key` of a request, with the route and the content that a retry must repeat."""

    route: str
    value: str
    content: bytes = field(repr=False)


class ConfigWriter:
    """Writes configs: checks the role, locks the config, plans the next version and commits it."""

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
        epoch: CurrentEpoch,
        scheduler: FairScheduler,
        clock: Clock,
    ) -> None:
        self._scheduler = scheduler
        self._configs = configs
        self._epoch = epoch
        self._encryption = encryption
        self._access = access
        self._recorder = recorder
        self._decrypter = decrypter
        self._cache = cache
        self._types = types
        self._plans = SavePlanBuilder(configs, decrypter=decrypter, cache=cache, types=types, scheduler=scheduler)
        self._change_feed = change_feed
        self._clock = clock
        self._locks: KeyedLock[ConfigKey, SaveQueue] = KeyedLock(SaveQueue, max_queued=MAX_QUEUED)

    async def save(
        self,
        draft: ConfigDraft,
        *,
        principal: Principal,
        precondition: Precondition,
        idempotency_key: IdempotencyKey | None = None,
    ) -> SavedVersion:
        """Append the configuration of a draft, merged or as it is, as the next version.

        Stores nothing if the configuration is unchanged. Raises `VersionConflict` if the precondition does not match.
        """
        await self._access.require_role(Role.EDITOR, draft.key, principal=principal, action="save")
        await self._plans.require_valid_draft(draft, principal=principal)
        return await self._write(draft, principal=principal, precondition=precondition, idempotency_key=idempotency_key)

    async def roll_back(
        self,
        rollback: Rollback,
        *,
        principal: Principal,
        precondition: Precondition,
        idempotency_key: IdempotencyKey | None = None,
    ) -> SavedVersion:
        """Append the configuration of an older version as the next one. This also restores a deleted config.

        Raises `NotFound` if the version does not exist or is a tombstone, and `VersionPruned` if its body was erased.
        """
        await self._access.require_role(Role.EDITOR, rollback.key, principal=principal, action="roll back")
        return await self._write(
            rollback, principal=principal, precondition=precondition, idempotency_key=idempotency_key
        )

    async def delete(
        self,
        deletion: Deletion,
        *,
        principal: Principal,
        precondition: Precondition,
        idempotency_key: IdempotencyKey | None = None,
    ) -> SavedVersion:
        """Append a tombstone, which keeps the history. Raises `NotFound` if the config does not exist."""
        await self._access.require_role(Role.EDITOR, deletion.key, principal=principal, action="retire")
        return await self._write(
            deletion, principal=principal, precondition=precondition, idempotency_key=idempotency_key
        )

    async def preview(
        self,
        request: ConfigDraft | Rollback,
        *,
        principal: Principal,
        precondition: Precondition,
        secrets: SecretsMode = SecretsMode.OPENED,
    ) -> SavePreview:
        """Return the result that a save or rollback would have. Store nothing but an audit entry.

        Clients call this a dry run. A preview that shows secrets is audited as an access to them.
        """
        # A stored word of the audit log for a preview.
        await self._access.require_role(Role.EDITOR, request.key, principal=principal, action="try out")
        if isinstance(request, ConfigDraft):
            await self._plans.require_valid_draft(request, principal=principal)
        for _ in range(MAX_RACES):
            try:
                plan = await self._plans.build(
                    request, principal=principal, precondition=precondition, epoch=self._epoch.value
                )
            except Superseded:
                continue
            except (VersionConflict, NotFound):
                await self._configs.confirm(request.key)
                raise
            is_masked = secrets is SecretsMode.MASKED
            comparing = partial(_compare, plan, is_masked=is_masked)
            changes = await self._scheduler.run(comparing, caller=principal.user_id)
            await self._configs.confirm(request.key)
            if not is_masked:
                await self._recorder.record(
                    "reveal", "dry run", principal=principal, key=request.key, version=plan.current_version
                )
            return SavePreview(changes, plan.outcome, plan.version, plan.warnings)
        raise TooManyRaces(retry_after_seconds=1)

    async def delete_expired_idempotency_records(self) -> None:
        await self._configs.delete_idempotency_records(
            before=self._clock() - IDEMPOTENCY_SECONDS * MICROSECONDS_PER_SECOND
        )

    async def _write(
        self,
        request: WriteRequest,
        *,
        principal: Principal,
        precondition: Precondition,
        idempotency_key: IdempotencyKey | None,
    ) -> SavedVersion:
        """Wait for the lock of the config, then write. After a lost race, start again from the new version.

        The lock orders the saves of this process. Saves of another process race with them in the database.
        """
        key = request.key
        record = None if idempotency_key is None else self._build_record(idempotency_key, principal=principal)
        async with self._locks.acquire(key) as queue:
            await queue.back_off()
            for races_lost in range(MAX_RACES):
                began = time.monotonic()
                if record and (first := await self._find_first_outcome(record, key)):
                    return first
                try:
                    # From here on, a newer version or a changed integration type keeps this version out of the cache.
                    with self._cache.begin_update(key) as update:
                        saved = await self._write_once(
                            request, principal=principal, precondition=precondition, record=record, update=update
                        )
                except IdempotencyKeyTaken:
                    # A concurrent retry stored its record first, or an expired record still exists.
                    await self.delete_expired_idempotency_records()
                    continue
                except Superseded:
                    continue
                except (VersionConflict, NotFound):
                    await self._configs.confirm(key)
                    raise
                queue.record_turn(saved.version, seconds=time.monotonic() - began, races_lost=races_lost)
                return saved
        raise TooManyRaces(retry_after_seconds=1)

    async def _write_once(
        self,
        request: WriteRequest,
        *,
        principal: Principal,
        precondition: Precondition,
        record: IdempotencyRecord | None,
        update: PendingUpdate,
    ) -> SavedVersion:
        """Plan and commit. Raises `Superseded` if another process was faster, or the data key or the epoch ended."""
        if isinstance(request, Deletion):
            return await self._delete_once(
                request, principal=principal, precondition=precondition, record=record, update=update
            )
        plan = await self._plans.build(request, principal=principal, precondition=precondition, epoch=update.epoch)
        if plan.outcome is Outcome.UNCHANGED:
            return await self._record_unchanged(request.key, plan, record, epoch=update.epoch)
        data_key_id = await self._require_data_key(request.key.tenant, plan.data_key)
        context = EncryptionContext(request.key, plan.version, Kind.SAVED)
        body = self._encryption.encrypt(plan.plaintext, context, data_key_id=data_key_id)
        new = NewVersion(
            request.key,
            plan.version,
            Kind.SAVED,
            body,
            data_key_id=data_key_id,
            saved_by=principal.user_id,
            saved_at=self._clock(),
            note=request.note,
        )
        action = "roll back" if isinstance(request, Rollback) else "save"
        return await self._commit(
            new, plan.outcome, action=action, principal=principal, record=record, update=update, plan=plan
        )

    async def _delete_once(
        self,
        deletion: Deletion,
        *,
        principal: Principal,
        precondition: Precondition,
        record: IdempotencyRecord | None,
        update: PendingUpdate,
    ) -> SavedVersion:
        current = await self._plans.read_deletable_version(deletion.key, precondition=precondition, epoch=update.epoch)
        tombstone = NewVersion(
            deletion.key,
            current.version + 1,
            Kind.DELETED,
            body=None,
            data_key_id=None,
            saved_by=principal.user_id,
            saved_at=self._clock(),
            note=deletion.note,
        )
        return await self._commit(
            tombstone, Outcome.DELETED, action="retire", principal=principal, record=record, update=update
        )

    async def _commit(
        self,
        new: NewVersion,
        outcome: Outcome,
        *,
        action: str,
        principal: Principal,
        record: IdempotencyRecord | None,
        update: PendingUpdate,
        plan: SavePlan | None = None,
    ) -> SavedVersion:
        """Append a version with its audit entry and idempotency record. Then update the cache and notify.

        A tombstone has no plan.
        """
        plaintext, type_ = (None, None) if plan is None else (plan.plaintext, plan.type)
        digest = None if plaintext is None else self._encryption.compute_mac("audit", plaintext)
        audit = self._recorder.sign(
            action, outcome, principal=principal, key=new.key, version=new.version, digest=digest
        )
        completed = record and replace(record, version=new.version, outcome=outcome)
        change = update.create_change()
        try:
            await self._configs.append(new, audit=audit, idempotency=completed, epoch=update.epoch, change=change)
        except IntegrityBroken:
            self._decrypter.report_removed(new.key, new.version)
            self._cache.forget(new.key)
            raise
        update.adopt_stamp(change)
        self._cache.complete_update(
            update,
            new.key,
            CurrentConfig(new, plaintext, type_, None if plan is None else plan.rendered),
            rendering=Rendering.READABLE,
        )
        self._change_feed.notify()
        self._decrypter.clear_failure(new.key)
        warnings = () if plan is None else plan.warnings
        type_version = None if type_ is None else type_.tag_version
        return SavedVersion(
            new.key, new.version, outcome, epoch=update.epoch, type_version=type_version, warnings=warnings
        )

    async def _record_unchanged(
        self, key: ConfigKey, plan: SavePlan, record: IdempotencyRecord | None, *, epoch: Epoch
    ) -> SavedVersion:
        if record is not None:
            completed = replace(record, version=plan.version, outcome=Outcome.UNCHANGED)
            await self._configs.insert_idempotency_record(completed, saved_at=self._clock())
        await self._configs.confirm(key)
        return SavedVersion(key, plan.version, Outcome.UNCHANGED, epoch=epoch, type_version=plan.type.tag_version)

    async def _require_data_key(self, tenant: str, data_key: WrappedKey | None) -> bytes:
        """Return the ID of the active data key of a tenant. Raises `Superseded` if the key was destroyed."""
        try:
            return await self._encryption.load_data_key(tenant, data_key)
        except DecryptionFailed:
            raise Superseded from None

    def _build_record(self, idempotency_key: IdempotencyKey, *, principal: Principal) -> IdempotencyRecord:
        content_mac = self._encryption.compute_mac("idempotency", idempotency_key.content)
        return IdempotencyRecord(principal.user_id, idempotency_key.route, idempotency_key.value, content_mac)

    async def _find_first_outcome(self, record: IdempotencyRecord, key: ConfigKey) -> SavedVersion | None:
        """Return the outcome of the first request with the same key. Raises `IdempotencyKeyReused`."""
        not_before = self._clock() - IDEMPOTENCY_SECONDS * MICROSECONDS_PER_SECOND
        first = await self._configs.read_idempotency_record(record, not_before=not_before)
        if first is None:
            return None
        if first.content_mac != record.content_mac:
            raise IdempotencyKeyReused
        self._cache.observe_version(key, first.version, is_deleted=first.outcome is Outcome.DELETED)
        await self._configs.confirm(key)
        type_ = await self._types.get(key.integration_type)
        return SavedVersion(
            key,
            first.version,
            first.outcome,
            epoch=self._epoch.value,
            is_replayed=True,
            type_version=type_.tag_version,
        )


def _compare(plan: SavePlan, *, is_masked: bool) -> Json:
    before = {} if plan.before is None else strict_json.read_stored(plan.before)
    return diff.diff(before, plan.after, secrets=plan.type.place if is_masked else None)
