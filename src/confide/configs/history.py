"""What a config was: its versions and what changed between them, for any caller that has a principal."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from confide import strict_json
from confide.configs import diff as diffs
from confide.configs.decryption import ConfigDecrypter
from confide.configs.model import Kind, VersionSummary
from confide.errors import NotFound
from confide.identity.model import Principal, Role
from confide.names import Key
from confide.strict_json import Json

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.configs.store import ConfigStore
    from confide.identity.access import Access
    from confide.integration_types.active import ActiveIntegrationTypes

# Before the first version there was nothing: a diff may begin there.
NOTHING = 0


class DecryptedVersion(NamedTuple):
    """One version with its line in the history; a tombstone has no configuration."""

    line: VersionSummary
    configuration: Json | None


class History:
    """Reads what was kept. What opens secrets of a version is a reveal, audited before the answer leaves."""

    def __init__(
        self,
        configs: ConfigStore,
        *,
        opener: ConfigDecrypter,
        access: Access,
        auditor: AuditRecorder,
        types: ActiveIntegrationTypes,
    ) -> None:
        self._types = types
        self._configs = configs
        self._opener = opener
        self._access = access
        self._auditor = auditor

    async def versions(self, key: Key, *, principal: Principal, before: int | None, limit: int) -> list[VersionSummary]:
        """List versions, the newest first, retired ones among them; raises `NotFound` if there never was any."""
        await self._access.require_role(Role.VIEWER, key, principal=principal, action="read history")
        lines = await self._configs.versions(key, before=before, limit=limit)
        if not lines and before is None:
            raise NotFound
        return lines

    async def version(self, key: Key, number: int, *, principal: Principal) -> DecryptedVersion:
        """Read one version; raises `NotFound`, or `VersionPruned` if its body was erased."""
        role = await self._access.require_role(Role.VIEWER, key, principal=principal, action="read history")
        lines = await self._configs.versions(key, before=number + 1, limit=1)
        if not lines or lines[0].version != number:
            raise NotFound
        configuration = await self._opened(key, number)
        if role >= Role.READER and configuration is not None:
            await self._auditor.record("reveal", "version", principal=principal, key=key, version=number)
        elif configuration is not None:
            configuration = (await self._types.of(key.integration_type)).mask(configuration)
        return DecryptedVersion(lines[0], configuration)

    async def diff(self, key: Key, *, since: int, until: int, principal: Principal) -> Json:
        """What changed from one version to another; a tombstone, and what was before the first one, is empty."""
        role = await self._access.require_role(Role.VIEWER, key, principal=principal, action="read history")
        if await self._configs.read(key) is None:
            raise NotFound
        before, after = [await self._opened(key, number) or {} for number in (since, until)]
        if role < Role.READER:
            return diffs.diff(before, after, hidden=(await self._types.of(key.integration_type)).place)
        await self._auditor.record(
            "reveal", "diff", principal=principal, key=key, version=until, subject=f"since version {since}"
        )
        return diffs.diff(before, after)

    async def _opened(self, key: Key, number: int) -> Json | None:
        if number == NOTHING:
            return None
        stored = await self._configs.read_version(key, number)
        if stored is None:
            raise NotFound
        if stored.kind is Kind.DELETED:
            return None
        return strict_json.read_stored(await self._opener.opened_version(stored))
