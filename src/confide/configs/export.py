"""Configs with what they hold, many at a time: to move them elsewhere, and to find those that break their type."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from confide.configs.model import ConfigFilter
from confide.configs.scan import ConfigScanner, scopes_of
from confide.errors import Violation
from confide.identity.model import Principal, Role, Scope
from confide.names import Key
from confide.strict_json import Json

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.integration_types.active import ActiveIntegrationTypes

# How long one page may take; what is left comes with the next one.
PAGE_SECONDS = 1.0
# Written at once: a page of more would hold up everybody else.
PAGE_BYTES = 2 * 2**20


class ExportedConfig(NamedTuple):
    """One config as it is stored, without defaults; None if what is stored does not open."""

    key: Key
    version: int
    saved_at: int
    configuration: Json | None
    is_masked: bool


class BrokenLine(NamedTuple):
    """One config that breaks the schema of its type, and where."""

    key: Key
    version: int
    saved_at: int
    violations: tuple[Violation, ...]


class ConfigExporter:
    """Pages of configs that the caller may see, in order of key; each says where the next one begins."""

    def __init__(self, walker: ConfigScanner, types: ActiveIntegrationTypes, *, auditor: AuditRecorder) -> None:
        self._walker = walker
        self._types = types
        self._auditor = auditor

    async def page(
        self, wanted: Scope, *, principal: Principal, after: Key | None, limit: int, is_opened: bool
    ) -> tuple[list[ExportedConfig], Key | None]:
        """Export a page; opened, secrets are shown where the caller may read them, and that is audited before."""
        until = time.monotonic() + PAGE_SECONDS
        found: list[ExportedConfig] = []
        more: Key | None = None
        size_bytes = 0
        async for config in self._walker.walk(scopes_of(wanted, principal), after=after):
            size_bytes += config.size_bytes
            if len(found) >= limit or (found and (time.monotonic() >= until or size_bytes > PAGE_BYTES)):
                more = found[-1].key
                break
            shown, role = config.configuration, principal.role_on(config.key)
            is_masked = not is_opened or role is None or role < Role.READER
            if shown is not None and is_masked:
                shown = (await self._types.of(config.key.integration_type)).mask(shown)
            found.append(ExportedConfig(config.key, config.version, config.saved_at, shown, is_masked))
        opened = [one.key for one in found if not one.is_masked]
        if opened:
            subject = f"{len(opened)} configs from {':'.join(opened[0])} to {':'.join(opened[-1])}"
            about = Key(wanted.tenant, wanted.integration_type)
            await self._auditor.record("reveal", "export", principal=principal, key=about, subject=subject)
        return found, more

    async def broken(
        self, wanted: Scope, *, principal: Principal, after: Key | None, limit: int, more: ConfigFilter
    ) -> tuple[list[BrokenLine], Key | None]:
        """Those that break the schema of their type, as many as are found in a second."""
        until = time.monotonic() + PAGE_SECONDS
        found: list[BrokenLine] = []
        async for config in self._walker.walk(scopes_of(wanted, principal), after=after, more=more):
            role = principal.role_on(config.key)
            is_masked = role is None or role < Role.READER
            type_ = await self._types.of(config.key.integration_type)
            violations = type_.report(config.configuration, hides_secrets=is_masked)
            if violations:
                found.append(BrokenLine(config.key, config.version, config.saved_at, violations))
            if len(found) >= limit or time.monotonic() >= until:
                return found, config.key
        return found, None
