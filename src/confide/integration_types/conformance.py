"""Find the configs that violate a schema: the active one or a draft."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confide.errors import NotFound, Violation
from confide.identity.model import Principal, Scope
from confide.integration_types.active import ActiveIntegrationTypes
from confide.integration_types.model import IntegrationType, TypeDraft
from confide.integration_types.schema import Schema
from confide.names import Key

if TYPE_CHECKING:
    from confide.configs.scan import ConfigScanner, ScannedConfig
    from confide.identity.access import Access

# The time limit of a page, and the maximum number of configs that it lists.
PAGE_SECONDS = 1.0
MAX_BROKEN = 1_000
# The interval between two progress reports.
PROGRESS_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class NonconformingConfig:
    """A config that violates a schema, and its violations."""

    key: Key
    version: int
    violations: tuple[Violation, ...]


@dataclass(slots=True)
class ConformanceReport:
    """The result so far; `after` is the last checked key, or None at the end."""

    checked: int = 0
    broken: int = 0
    configs: list[NonconformingConfig] = field(default_factory=list)
    after: Key | None = None


class ConformanceCheck:
    """Checks the configs of a type for admins, in slices, so that other requests are not delayed."""

    def __init__(self, scanner: ConfigScanner, types: ActiveIntegrationTypes, *, access: Access) -> None:
        self._scanner = scanner
        self._types = types
        self._access = access

    async def of(self, type_: str | TypeDraft, *, principal: Principal) -> IntegrationType:
        """Compile the type to check against, by name or from a draft; raises `NotFound` or `SchemaInvalid`."""
        await self._access.require_admin(principal, action="check type")
        if isinstance(type_, TypeDraft):
            schema = None if type_.schema is None else Schema(type_.schema)
            return IntegrationType(0, schema, mode=type_.mode, keep=type_.keep)
        found = await self._types.get(type_)
        if found.schema is None:
            raise NotFound
        return found

    async def page(self, name: str, type_: IntegrationType, *, after: Key | None) -> ConformanceReport:
        """Check the configs after a key for up to a second."""
        until = time.monotonic() + PAGE_SECONDS
        found = ConformanceReport(after=after)
        async for config in self._scanner.scan([[Scope("*", name)]], after=after):
            _check(config, type_, found)
            found.after = config.key
            if time.monotonic() >= until or len(found.configs) >= MAX_BROKEN:
                return found
        found.after = None
        return found

    async def all(self, name: str, type_: IntegrationType) -> AsyncIterator[ConformanceReport]:
        """Check all configs; yields the result so far every half second and the final one at the end."""
        due = time.monotonic() + PROGRESS_SECONDS
        found = ConformanceReport()
        async for config in self._scanner.scan([[Scope("*", name)]], after=None):
            found.after = config.key
            _check(config, type_, found)
            if time.monotonic() >= due:
                yield found
                due = time.monotonic() + PROGRESS_SECONDS
        found.after = None
        yield found


def _check(config: ScannedConfig, type_: IntegrationType, found: ConformanceReport) -> None:
    found.checked += 1
    violations = type_.report(config.configuration)
    if violations:
        found.broken += 1
        if len(found.configs) < MAX_BROKEN:
            found.configs.append(NonconformingConfig(config.key, config.version, violations))
