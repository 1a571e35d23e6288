"""Plan a save: its next version, before anything is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from confide import strict_json
from confide.configs.decryption import ConfigDecrypter
from confide.configs.errors import ConfigurationInvalid
from confide.configs.merge import merge
from confide.configs.model import ConfigDraft, Kind, Outcome, Rollback, StoredVersion, VersionWithDataKey
from confide.crypto.errors import IntegrityBroken
from confide.crypto.model import WrappedKey
from confide.epoch import Epoch
from confide.errors import MAX_LISTED_VIOLATIONS, NotFound, Violation
from confide.identity.model import Principal
from confide.integration_types.errors import SchemaBroken
from confide.names import ConfigKey
from confide.preconditions import Precondition
from confide.reads.model import Rendering
from confide.strict_json import Json

if TYPE_CHECKING:
    from confide.configs.store import ConfigStore
    from confide.fair_scheduler import FairScheduler
    from confide.integration_types.active import ActiveIntegrationTypes
    from confide.integration_types.compiled import IntegrationType
    from confide.integration_types.schema import SchemaViolation
    from confide.reads.cache import ConfigCache


class SavePlan(NamedTuple):
    """The current version of a config and the version that a save would append."""

    # The number of the current version, even of a tombstone. 0 if the config never existed.
    current_version: int
    # The current configuration. None if the config does not exist or cannot be decrypted.
    before: bytes | None
    after: Json
    # `after` as the bytes to encrypt.
    plaintext: bytes
    outcome: Outcome
    # The number of the version after the save. An unchanged configuration keeps the current one.
    version: int
    # The active data key of the tenant, if the store read it.
    data_key: WrappedKey | None
    type: IntegrationType
    warnings: tuple[Violation, ...] = ()
    # The configuration as the cache will answer it. None if the configuration is unchanged.
    rendered: bytes | None = None


class SavePlanBuilder:
    """Builds the plans of saves and previews, and finds the version that a deletion ends."""

    def __init__(
        self,
        configs: ConfigStore,
        *,
        decrypter: ConfigDecrypter,
        cache: ConfigCache,
        types: ActiveIntegrationTypes,
        scheduler: FairScheduler,
    ) -> None:
        self._scheduler = scheduler
        self._types = types
        self._configs = configs
        self._decrypter = decrypter
        self._cache = cache

    async def require_valid_draft(self, draft: ConfigDraft, *, principal: Principal) -> None:
        """Raise `ConfigurationInvalid` for anything but a JSON object, and `MaskSentBack` if it contains a mask."""
        if not isinstance(draft.configuration, dict):
            violation = Violation("/configuration", ConfigurationInvalid.code, ConfigurationInvalid.sentence)
            raise ConfigurationInvalid(violations=(violation,))
        configuration = draft.configuration
        await self._scheduler.run(
            lambda: self._types.require_no_mask(configuration),
            caller=principal.user_id,
            size_bytes=draft.size_bytes,
        )

    async def build(
        self, request: ConfigDraft | Rollback, *, principal: Principal, precondition: Precondition, epoch: Epoch
    ) -> SavePlan:
        """Plan the next version from the current one.

        Raises `VersionConflict`, or `SchemaBroken` if the integration type rejects the configuration.
        """
        current, data_key = await self._read_current(request.key)
        existing = _select_existing(current)
        precondition.require_match(None if existing is None else existing.version, epoch=epoch)
        is_merge = isinstance(request, ConfigDraft) and request.mode == "merge"
        before = None if existing is None else await self._decrypt(existing, data_key, is_needed=is_merge)
        restored = await self._decrypt_restored(request) if isinstance(request, Rollback) else b""
        type_ = await self._types.get(request.key.integration_type)
        number = 0 if current is None else current.version

        def compute() -> SavePlan:
            old = None if before is None else strict_json.read_stored(before)
            after = _build_configuration(request, old or {}, restored)
            plaintext = strict_json.encode_configuration(after)
            # Equal configurations have the same length in any order of their members.
            if before is not None and len(before) == len(plaintext) and strict_json.is_equal(old, after):
                return SavePlan(number, before, after, plaintext, Outcome.UNCHANGED, number, data_key, type_)
            warnings = _check_schema(type_, old, after)
            outcome = Outcome.CREATED if existing is None else Outcome.UPDATED
            rendered = type_.render(plaintext, Rendering.READABLE)
            return SavePlan(
                number, before, after, plaintext, outcome, number + 1, data_key, type_, warnings, rendered=rendered
            )

        size_bytes = None
        if type_.schema is None and isinstance(request, ConfigDraft) and request.size_bytes is not None:
            size_bytes = request.size_bytes + len(before or b"")
        return await self._scheduler.run(compute, caller=principal.user_id, size_bytes=size_bytes)

    async def read_deletable_version(
        self, key: ConfigKey, *, precondition: Precondition, epoch: Epoch
    ) -> StoredVersion:
        """Read the version that a deletion ends. Raises `VersionConflict`, or `NotFound` if there is none."""
        current, _ = await self._read_current(key)
        existing = _select_existing(current)
        precondition.require_match(None if existing is None else existing.version, epoch=epoch)
        if existing is None:
            raise NotFound
        return existing

    async def _decrypt_restored(self, request: Rollback) -> bytes:
        version = await self._configs.read_version(request.key, request.version)
        if version is None or version.kind is not Kind.SAVED:
            raise NotFound("This version does not exist or is a tombstone. Choose a saved version.")
        return await self._decrypter.decrypt_version(version)

    async def _read_current(self, key: ConfigKey) -> VersionWithDataKey:
        """Read the current version, and supersede older ones in the cache. Raises `IntegrityBroken` if it went back."""
        known = self._cache.find_known_version(key)
        found = await self._configs.read_with_data_key(key)
        version = 0 if found.current is None else found.current.version
        try:
            self._decrypter.require_not_older(key, version, known=self._cache.find_still_known_version(key, known))
        except IntegrityBroken:
            self._cache.forget(key)
            raise
        if found.current is not None:
            self._cache.observe_version(key, version, is_deleted=found.current.kind is Kind.DELETED)
        return found

    async def _decrypt(self, current: StoredVersion, data_key: WrappedKey | None, *, is_needed: bool) -> bytes | None:
        try:
            return await self._decrypter.decrypt(current, data_key)
        except IntegrityBroken:
            # A version that cannot be decrypted can be replaced, but not merged into.
            if is_needed:
                raise
            return None


def _build_configuration(request: ConfigDraft | Rollback, before: Json, restored: bytes) -> Json:
    """Build the configuration of the next version. `restored` is the one of the version to restore."""
    if isinstance(request, Rollback):
        return strict_json.read_stored(restored)
    after: Json = merge(before, request.configuration) if request.mode == "merge" else request.configuration
    return after


def _select_existing(current: StoredVersion | None) -> StoredVersion | None:
    """Return the current version unless it is a tombstone: then the config does not exist."""
    return None if current is None or current.kind is Kind.DELETED else current


def _check_schema(type_: IntegrationType, before: Json | None, after: Json) -> tuple[Violation, ...]:
    """Return the violations that are only warnings. Raises `SchemaBroken` with the others."""
    if type_.schema is None:
        return ()
    rejected, warned = type_.check_save(before, after)
    if rejected:
        raise SchemaBroken(violations=_convert_violations(rejected))
    return _convert_violations(warned)


def _convert_violations(violations: list[SchemaViolation]) -> tuple[Violation, ...]:
    return tuple(violation.to_violation(inside=("configuration",)) for violation in violations[:MAX_LISTED_VIOLATIONS])
