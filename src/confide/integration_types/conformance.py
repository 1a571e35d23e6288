"""Find the configs that violate the active schema or a draft of a schema."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confide.context import PAGE_SECONDS
from confide.errors import NotFound, Violation
from confide.identity.model import Principal, Scope
from confide.integration_types.active import ActiveIntegrationTypes
from confide.integration_types.compiled import IntegrationType
from confide.integration_types.model import TypeDraft
from confide.integration_types.schema import Schema
from confide.names import ConfigKey

if TYPE_CHECKING:
    from confide.configs.scan import ConfigScanner, ScannedConfig
    from confide.identity.access import Access

# A page ends when it lists this many configs.
MAX_LISTED = 1_000
# The interval between two progress reports.
PROGRESS_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class NonconformingConfig:
    """A config that violates a schema."""

    key: ConfigKey
    version: int
    violations: tuple[Violation, ...]


@dataclass(slots=True)
class ConformanceReport:
    """The result so far. `after` is the last checked key, or None at the end."""

    checked: int = 0
    nonconforming: int = 0
    configs: list[NonconformingConfig] = field(default_factory=list)
    after: ConfigKey | None = None


class ConformanceCheck:
    """Checks the configs of an integration type, for admins. Other requests run between its slices."""

    def __init__(self, scanner: ConfigScanner, types: ActiveIntegrationTypes, *, access: Access) -> None:
        self._scanner = scanner
        self._types = types
        self._access = access

    async def load_type(self, type_: str | TypeDraft, *, principal: Principal) -> IntegrationType:
        """Load the active type by name, or compile a draft. Raises `NotFound` or `SchemaInvalid`."""
        await self._access.require_admin(principal, action="check type")
        if isinstance(type_, TypeDraft):
            schema = None if type_.schema is None else Schema(type_.schema)
            return IntegrationType(0, schema, mode=type_.mode, keep=type_.keep)
        active = await self._types.get(type_)
        if active.schema is None:
            raise NotFound
        return active

    async def check_page(self, name: str, type_: IntegrationType, *, after: ConfigKey | None) -> ConformanceReport:
        """Check the configs after a key for up to a second."""
        until = time.monotonic() + PAGE_SECONDS
        report = ConformanceReport(after=after)
        async for config in self._scanner.scan([[Scope("*", name)]], after=after):
            _check(config, type_, report)
            report.after = config.key
            if time.monotonic() >= until or len(report.configs) >= MAX_LISTED:
                return report
        report.after = None
        return report

    async def check_all(self, name: str, type_: IntegrationType) -> AsyncIterator[ConformanceReport]:
        """Check all configs. Yield the result so far every half second, and the final result at the end."""
        report_at = time.monotonic() + PROGRESS_SECONDS
        report = ConformanceReport()
        async for config in self._scanner.scan([[Scope("*", name)]], after=None):
            report.after = config.key
            _check(config, type_, report)
            if time.monotonic() >= report_at:
                yield report
                report_at = time.monotonic() + PROGRESS_SECONDS
        report.after = None
        yield report


def _check(config: ScannedConfig, type_: IntegrationType, report: ConformanceReport) -> None:
    report.checked += 1
    violations = type_.list_violations(config.configuration)
    if violations:
        report.nonconforming += 1
        if len(report.configs) < MAX_LISTED:
            report.configs.append(NonconformingConfig(config.key, config.version, violations))
