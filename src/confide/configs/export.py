"""Export configs with their configurations, in pages."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from confide import strict_json
from confide.configs.scan import ConfigScanner, build_scope_groups
from confide.context import PAGE_SECONDS
from confide.identity.model import Principal, Role, Scope
from confide.names import ConfigKey

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.fair_scheduler import FairScheduler
    from confide.integration_types.active import ActiveIntegrationTypes
    from confide.integration_types.compiled import IntegrationType

# A larger page would need much memory.
MAX_PAGE_BYTES = 2 * 2**20


class ExportedConfig(NamedTuple):
    """One config as stored, without defaults, as JSON. The configuration is None if it cannot be decrypted."""

    key: ConfigKey
    version: int
    saved_at: int
    configuration: bytes | None
    is_masked: bool


class ExportPage(NamedTuple):
    """One page of an export. The next page starts after `last_key`; None on the last page."""

    configs: list[ExportedConfig]
    last_key: ConfigKey | None


class ConfigExporter:
    """Exports the configs that a caller can see, in order of their keys."""

    def __init__(
        self,
        scanner: ConfigScanner,
        types: ActiveIntegrationTypes,
        *,
        recorder: AuditRecorder,
        scheduler: FairScheduler,
    ) -> None:
        self._scheduler = scheduler
        self._scanner = scanner
        self._types = types
        self._recorder = recorder

    async def export_page(
        self, scope: Scope, *, principal: Principal, after: ConfigKey | None, limit: int, is_masked: bool
    ) -> ExportPage:
        """Export a page. Secrets that the caller cannot read are always masked.

        Access to secrets is audited before the page is returned.
        """
        until = time.monotonic() + PAGE_SECONDS
        exported: list[ExportedConfig] = []
        last_key: ConfigKey | None = None
        size_bytes = 0
        async for config in self._scanner.scan(build_scope_groups(scope, principal), after=after):
            size_bytes += len(config.plaintext or b"")
            is_full = len(exported) >= limit or size_bytes > MAX_PAGE_BYTES or time.monotonic() >= until
            if is_full and exported:
                last_key = exported[-1].key
                break
            configuration, role = config.plaintext, principal.find_role(config.key)
            is_config_masked = is_masked or role is None or role < Role.READER
            if configuration is not None and is_config_masked:
                type_ = await self._types.get(config.key.integration_type)
                masking = partial(_mask, configuration, type_)
                configuration = await self._scheduler.run(masking, caller=principal.user_id)
            exported.append(
                ExportedConfig(config.key, config.version, config.saved_at, configuration, is_masked=is_config_masked)
            )
        readable = [config.key for config in exported if not config.is_masked]
        if readable:
            await self._record_access(scope, readable, principal=principal)
        return ExportPage(exported, last_key)

    async def _record_access(self, scope: Scope, keys: list[ConfigKey], *, principal: Principal) -> None:
        subject = f"{len(keys)} configs from {':'.join(keys[0])} to {':'.join(keys[-1])}"
        pattern = ConfigKey(scope.tenant, scope.integration_type)
        await self._recorder.record("reveal", "export", principal=principal, key=pattern, subject=subject)


def _mask(configuration: bytes, type_: IntegrationType) -> bytes:
    return strict_json.write(type_.mask(strict_json.read_stored(configuration)))
