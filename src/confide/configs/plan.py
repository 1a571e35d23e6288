"""Plan a save or deletion before anything is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from confide import strict_json
from confide.configs import merge
from confide.configs.decryption import ConfigDecrypter
from confide.configs.errors import ConfigurationInvalid
from confide.configs.model import ConfigDraft, Kind, Outcome, Rollback, StoredVersion
from confide.crypto.errors import IntegrityBroken
from confide.crypto.model import WrappedKey
from confide.errors import NotFound, Violation
from confide.integration_types.errors import SchemaBroken
from confide.integration_types.model import IntegrationType, require_no_mask
from confide.names import Key
from confide.preconditions import Precondition
from confide.strict_json import Json

if TYPE_CHECKING:
    from confide.configs.store import ConfigStore
    from confide.integration_types.active import ActiveIntegrationTypes
    from confide.integration_types.schema import SchemaViolation
    from confide.reads.cache import ConfigCache

# All violations are checked; a response lists at most this many.
MAX_REPORTED = 1_000


class SavePlan(NamedTuple):
    """The current version and the version that a save would append."""

    number: int
    before: bytes | None
    after: Json
    plain: bytes
    outcome: Outcome
    version: int
    active: WrappedKey | None
    type: IntegrationType
    warnings: tuple[Violation, ...] = ()


class SavePlanner:
    """Plans the next version of a config, for saves and for their previews."""

    def __init__(
        self, configs: ConfigStore, *, decrypter: ConfigDecrypter, cache: ConfigCache, types: ActiveIntegrationTypes
    ) -> None:
        self._types = types
        self._configs = configs
        self._decrypter = decrypter
        self._cache = cache

    async def plan(self, act: ConfigDraft | Rollback, *, precondition: Precondition) -> SavePlan:
        """Plan from the current version; raises `SchemaBroken` if the integration type rejects the configuration."""
        current, active = await self._configs.read_with_key(act.key)
        self._update_cache(current)
        is_live = current is not None and current.kind is Kind.SAVED
        number = 0 if current is None else current.version
        precondition.require(number if is_live else None)
        is_merge = isinstance(act, ConfigDraft) and act.how == "merge"
        before = (
            await self._decrypt_current(current, active, is_needed=is_merge)
            if current is not None and is_live
            else None
        )
        known = None if before is None else strict_json.read_stored(before)
        after = await self._next_configuration(act, known or {})
        plain = strict_json.check_merged(after)
        type_ = await self._types.get(act.key.integration_type)
        # Equal configurations have the same length, whatever the order of their members.
        if before is not None and len(before) == len(plain) and strict_json.are_equal(known, after):
            return SavePlan(number, before, after, plain, Outcome.UNCHANGED, number, active, type_)
        warnings = _check_schema(type_, known, after)
        outcome = Outcome.UPDATED if is_live else Outcome.CREATED
        return SavePlan(number, before, after, plain, outcome, number + 1, active, type_, warnings)

    async def _next_configuration(self, act: ConfigDraft | Rollback, before: Json) -> Json:
        if isinstance(act, ConfigDraft):
            merged: Json = merge.merge(before, act.configuration) if act.how == "merge" else act.configuration
            return merged
        version = await self._configs.read_version(act.key, act.version)
        if version is None or version.kind is not Kind.SAVED:
            raise NotFound("This version does not exist or is a tombstone. Choose a saved version.")
        return strict_json.read_stored(await self._decrypter.decrypt_version(version))

    async def read_deletable(self, key: Key, *, precondition: Precondition) -> StoredVersion:
        """Read the version that a deletion would end; checks the condition first, then raises `NotFound`."""
        current = await self._configs.read(key)
        self._update_cache(current)
        is_live = current is not None and current.kind is Kind.SAVED
        precondition.require(current.version if current is not None and is_live else None)
        if current is None or not is_live:
            raise NotFound
        return current

    def _update_cache(self, current: StoredVersion | None) -> None:
        if current is not None:
            self._cache.observe_version(current.key, current.version, is_deleted=current.kind is Kind.DELETED)

    async def _decrypt_current(
        self, current: StoredVersion, active: WrappedKey | None, *, is_needed: bool
    ) -> bytes | None:
        try:
            return await self._decrypter.decrypt(current, active)
        except IntegrityBroken:
            # A version that cannot be decrypted can be replaced, but not merged into.
            if is_needed:
                raise
            return None


def _check_schema(type_: IntegrationType, before: Json | None, after: Json) -> tuple[Violation, ...]:
    if type_.schema is None:
        return ()
    errors, warnings = type_.check_save(before, after)
    if errors:
        raise SchemaBroken(violations=_as_violations(errors))
    return _as_violations(warnings)


def _as_violations(violations: list[SchemaViolation]) -> tuple[Violation, ...]:
    return tuple(violation.as_violation(inside=("configuration",)) for violation in violations[:MAX_REPORTED])


def require_savable(draft: ConfigDraft) -> None:
    if not isinstance(draft.configuration, dict):
        at = Violation("/configuration", ConfigurationInvalid.code, ConfigurationInvalid.sentence)
        raise ConfigurationInvalid(violations=(at,))
    require_no_mask(draft.configuration)
