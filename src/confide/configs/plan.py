"""What an act on a config would come to, before anything of it is stored."""

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
from confide.preconditions import Condition
from confide.strict_json import Json

if TYPE_CHECKING:
    from confide.configs.store import ConfigStore
    from confide.integration_types.active import ActiveIntegrationTypes
    from confide.integration_types.schema import SchemaViolation
    from confide.reads.cache import Cache

# Faults that an answer tells of; all of them are judged.
MAX_REPORTED = 1_000


class SavePlan(NamedTuple):
    """What an act comes to: from the current number and bytes, to which configuration, under which number."""

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
    """Reads what is current and works out the next version; a save and its dry run come to the same."""

    def __init__(
        self, configs: ConfigStore, *, opener: ConfigDecrypter, cache: Cache, types: ActiveIntegrationTypes
    ) -> None:
        self._types = types
        self._configs = configs
        self._opener = opener
        self._cache = cache

    async def planned(self, act: ConfigDraft | Rollback, *, condition: Condition) -> SavePlan:
        """What an act comes to, from what is current now; raises `SchemaBroken` where its type refuses that."""
        current, active = await self._configs.read_with_key(act.key)
        self.hear(current)
        is_live = current is not None and current.kind is Kind.SAVED
        number = 0 if current is None else current.version
        condition.require(number if is_live else None)
        is_merge = isinstance(act, ConfigDraft) and act.how == "merge"
        before = await self._kept(current, active, is_needed=is_merge) if current is not None and is_live else None
        known = None if before is None else strict_json.read_stored(before)
        after = await self._wanted(act, known or {})
        plain = strict_json.check_merged(after)
        type_ = await self._types.of(act.key.integration_type)
        # What is equal is as long, whatever the order of its members.
        if before is not None and len(before) == len(plain) and strict_json.are_equal(known, after):
            return SavePlan(number, before, after, plain, Outcome.UNCHANGED, number, active, type_)
        warnings = _judged(type_, known, after)
        outcome = Outcome.UPDATED if is_live else Outcome.CREATED
        return SavePlan(number, before, after, plain, outcome, number + 1, active, type_, warnings)

    async def _wanted(self, act: ConfigDraft | Rollback, before: Json) -> Json:
        if isinstance(act, ConfigDraft):
            wanted: Json = merge.merge(before, act.configuration) if act.how == "merge" else act.configuration
            return wanted
        version = await self._configs.read_version(act.key, act.version)
        if version is None or version.kind is not Kind.SAVED:
            raise NotFound("This version does not exist or is a tombstone. Choose a saved version.")
        return strict_json.read_stored(await self._opener.opened_version(version))

    async def current(self, key: Key, *, condition: Condition) -> StoredVersion:
        """What may be retired; raises `NotFound` or, before that, what the condition says."""
        current = await self._configs.read(key)
        self.hear(current)
        is_live = current is not None and current.kind is Kind.SAVED
        condition.require(current.version if current is not None and is_live else None)
        if current is None or not is_live:
            raise NotFound
        return current

    def hear(self, current: StoredVersion | None) -> None:
        """What a save learns of the current version, a read of this process knows from then on."""
        if current is not None:
            self._cache.hear(current.key, current.version, is_retired=current.kind is Kind.DELETED)

    async def _kept(self, current: StoredVersion, active: WrappedKey | None, *, is_needed: bool) -> bytes | None:
        try:
            return await self._opener.opened(current, active)
        except IntegrityBroken:
            # What no longer opens cannot be merged into, but it can be replaced.
            if is_needed:
                raise
            return None


def _judged(type_: IntegrationType, before: Json | None, after: Json) -> tuple[Violation, ...]:
    if type_.schema is None:
        return ()
    refusing, warned = type_.check_save(before, after)
    if refusing:
        raise SchemaBroken(violations=_told(refusing))
    return _told(warned)


def _told(violations: list[SchemaViolation]) -> tuple[Violation, ...]:
    return tuple(violation.as_violation(inside=("configuration",)) for violation in violations[:MAX_REPORTED])


def require_savable(draft: ConfigDraft) -> None:
    if not isinstance(draft.configuration, dict):
        at = Violation("/configuration", ConfigurationInvalid.code, ConfigurationInvalid.sentence)
        raise ConfigurationInvalid(violations=(at,))
    require_no_mask(draft.configuration)
