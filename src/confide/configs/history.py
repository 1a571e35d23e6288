"""Read the history of a config: its versions and the differences between them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from confide import strict_json
from confide.configs.decryption import ConfigDecrypter
from confide.configs.diff import diff
from confide.configs.model import Kind, VersionSummary
from confide.errors import NotFound
from confide.identity.model import Principal, Role, SecretsMode
from confide.names import ConfigKey
from confide.strict_json import Json

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.configs.store import ConfigStore
    from confide.fair_scheduler import FairScheduler
    from confide.identity.access import Access
    from confide.integration_types.active import ActiveIntegrationTypes

# A diff can start before the first version, where the configuration is empty.
BEFORE_FIRST_VERSION = 0


class DecryptedVersion(NamedTuple):
    """One version with its summary. A tombstone has no configuration."""

    summary: VersionSummary
    configuration: Json | None


class History:
    """Reads versions of configs. Access to secrets is audited before the versions are returned."""

    def __init__(
        self,
        configs: ConfigStore,
        *,
        decrypter: ConfigDecrypter,
        access: Access,
        recorder: AuditRecorder,
        types: ActiveIntegrationTypes,
        scheduler: FairScheduler,
    ) -> None:
        self._scheduler = scheduler
        self._types = types
        self._configs = configs
        self._decrypter = decrypter
        self._access = access
        self._recorder = recorder

    async def list_versions(
        self, key: ConfigKey, *, principal: Principal, before: int | None, limit: int
    ) -> list[VersionSummary]:
        """List versions and tombstones, the newest first. Raises `NotFound` if the config never existed."""
        await self._access.require_role(Role.VIEWER, key, principal=principal, action="read history")
        versions = await self._configs.list_versions(key, before=before, limit=limit)
        if not versions and before is None:
            raise NotFound
        return versions

    async def read_version(
        self, key: ConfigKey, number: int, *, principal: Principal, secrets: SecretsMode | None = None
    ) -> DecryptedVersion:
        """Read one version. Raises `NotFound`, or `VersionPruned` if its body was erased."""
        is_masked = await self._access.require_secrets_mode(secrets, key, principal=principal, action="read history")
        versions = await self._configs.list_versions(key, before=number + 1, limit=1)
        if not versions or versions[0].version != number:
            raise NotFound
        configuration = await self._decrypt(key, number)
        if configuration is not None and is_masked:
            type_ = await self._types.get(key.integration_type)
            configuration = await self._scheduler.run(partial(type_.mask, configuration), caller=principal.user_id)
        elif configuration is not None:
            await self._recorder.record("reveal", "version", principal=principal, key=key, version=number)
        return DecryptedVersion(versions[0], configuration)

    async def compare(
        self, key: ConfigKey, *, since: int, until: int, principal: Principal, secrets: SecretsMode | None = None
    ) -> Json:
        """Compare two versions. A tombstone and version 0 count as an empty configuration."""
        is_masked = await self._access.require_secrets_mode(secrets, key, principal=principal, action="read history")
        if await self._configs.read(key) is None:
            raise NotFound
        before, after = [await self._decrypt(key, number) or {} for number in (since, until)]
        if is_masked:
            place = (await self._types.get(key.integration_type)).place
            return await self._scheduler.run(partial(diff, before, after, secrets=place), caller=principal.user_id)
        await self._recorder.record(
            "reveal", "diff", principal=principal, key=key, version=until, subject=f"since version {since}"
        )
        return await self._scheduler.run(partial(diff, before, after), caller=principal.user_id)

    async def _decrypt(self, key: ConfigKey, number: int) -> Json | None:
        if number == BEFORE_FIRST_VERSION:
            return None
        stored = await self._configs.read_version(key, number)
        if stored is None:
            raise NotFound
        if stored.kind is Kind.DELETED:
            return None
        return strict_json.read_stored(await self._decrypter.decrypt_version(stored))
