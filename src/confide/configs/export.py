"""Export configs in pages, and list configs that violate the schema of their integration type."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from confide.configs.model import ConfigFilter
from confide.configs.scan import ConfigScanner, build_scope_groups
from confide.errors import Violation
from confide.identity.model import Principal, Role, Scope
from confide.names import Key
from confide.strict_json import Json

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.integration_types.active import ActiveIntegrationTypes

# A page ends after this time; the next page continues.
PAGE_SECONDS = 1.0
# A larger page would block the event loop while it is serialized.
PAGE_BYTES = 2 * 2**20


class ExportedConfig(NamedTuple):
    """One config as stored, without defaults. The configuration is None if it cannot be decrypted."""

    key: Key
    version: int
    saved_at: int
    configuration: Json | None
    is_masked: bool


class ConfigWithViolations(NamedTuple):
    """One config with its violations of the schema of its integration type."""

    key: Key
    version: int
    saved_at: int
    violations: tuple[Violation, ...]


class ConfigExporter:
    """Reads pages of configs that the caller can see, in order of their keys, with the cursor of the next page."""

    def __init__(self, scanner: ConfigScanner, types: ActiveIntegrationTypes, *, recorder: AuditRecorder) -> None:
        self._scanner = scanner
        self._types = types
        self._recorder = recorder

    async def read_page(
        self, scope: Scope, *, principal: Principal, after: Key | None, limit: int, is_decrypted: bool
    ) -> tuple[list[ExportedConfig], Key | None]:
        """Export a page. With `is_decrypted`, show secrets that the caller may read, audited first."""
        until = time.monotonic() + PAGE_SECONDS
        found: list[ExportedConfig] = []
        more: Key | None = None
        size_bytes = 0
        async for config in self._scanner.scan(build_scope_groups(scope, principal), after=after):
            size_bytes += config.size_bytes
            if len(found) >= limit or (found and (time.monotonic() >= until or size_bytes > PAGE_BYTES)):
                more = found[-1].key
                break
            configuration, role = config.configuration, principal.find_role(config.key)
            is_masked = not is_decrypted or role is None or role < Role.READER
            if configuration is not None and is_masked:
                configuration = (await self._types.get(config.key.integration_type)).mask(configuration)
            found.append(ExportedConfig(config.key, config.version, config.saved_at, configuration, is_masked))
        revealed = [one.key for one in found if not one.is_masked]
        if revealed:
            subject = f"{len(revealed)} configs from {':'.join(revealed[0])} to {':'.join(revealed[-1])}"
            about = Key(scope.tenant, scope.integration_type)
            await self._recorder.record("reveal", "export", principal=principal, key=about, subject=subject)
        return found, more

    async def list_nonconforming(
        self, scope: Scope, *, principal: Principal, after: Key | None, limit: int, more: ConfigFilter
    ) -> tuple[list[ConfigWithViolations], Key | None]:
        """List configs that violate their schema, as many as one second of scanning finds."""
        until = time.monotonic() + PAGE_SECONDS
        found: list[ConfigWithViolations] = []
        async for config in self._scanner.scan(build_scope_groups(scope, principal), after=after, more=more):
            role = principal.find_role(config.key)
            is_masked = role is None or role < Role.READER
            type_ = await self._types.get(config.key.integration_type)
            violations = type_.report(config.configuration, hides_secrets=is_masked)
            if violations:
                found.append(ConfigWithViolations(config.key, config.version, config.saved_at, violations))
            if len(found) >= limit or time.monotonic() >= until:
                return found, config.key
        return found, None
