"""Which configs break a schema: the one in force, or one that somebody thinks of."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from confide.configs.scan import ConfigScanner, ScannedConfig
from confide.errors import NotFound, Violation
from confide.identity.access import Access
from confide.identity.model import Principal, Scope
from confide.integration_types.active import ActiveIntegrationTypes
from confide.integration_types.model import IntegrationType, TypeDraft
from confide.integration_types.schema import Schema
from confide.names import Key

# How long one page may take, and how many broken configs it may name.
PAGE_SECONDS = 1.0
MAX_BROKEN = 1_000
# Between two signs of progress.
PROGRESS_SECONDS = 0.5
UNOPENED = Violation("", "integrity-error", "The stored config cannot be decrypted.")


@dataclass(frozen=True, slots=True)
class NonconformingConfig:
    """A config that breaks a schema, and where."""

    key: Key
    version: int
    violations: tuple[Violation, ...]


@dataclass(slots=True)
class ConformanceReport:
    """What was found so far; `after` is the key that was looked at last, None once all were."""

    checked: int = 0
    broken: int = 0
    configs: list[NonconformingConfig] = field(default_factory=list)
    after: Key | None = None


class ConformanceCheck:
    """Checks the configs of a type, for admins, without holding anybody up."""

    def __init__(self, walker: ConfigScanner, types: ActiveIntegrationTypes, *, access: Access) -> None:
        self._walker = walker
        self._types = types
        self._access = access

    async def of(self, asked: str | TypeDraft, *, principal: Principal) -> IntegrationType:
        """What is to be checked against: the type in force or a draft; raises `NotFound` or `SchemaInvalid`."""
        await self._access.require_admin(principal, action="check type")
        if isinstance(asked, TypeDraft):
            schema = None if asked.schema is None else Schema(asked.schema)
            return IntegrationType(0, schema, mode=asked.mode, keep=asked.keep)
        found = await self._types.of(asked)
        if found.schema is None:
            raise NotFound
        return found

    async def page(self, name: str, type_: IntegrationType, *, after: Key | None) -> ConformanceReport:
        """Check as many as can be in a second, from after a key on."""
        until = time.monotonic() + PAGE_SECONDS
        found = ConformanceReport(after=after)
        async for config in self._walker.walk([[Scope("*", name)]], after=after):
            _check(config, type_, found)
            found.after = config.key
            if time.monotonic() >= until or len(found.configs) >= MAX_BROKEN:
                return found
        found.after = None
        return found

    async def all(self, name: str, type_: IntegrationType) -> AsyncIterator[ConformanceReport]:
        """Check all; tells every half second what was found so far, and at last the whole."""
        due = time.monotonic() + PROGRESS_SECONDS
        found = ConformanceReport()
        async for config in self._walker.walk([[Scope("*", name)]], after=None):
            found.after = config.key
            _check(config, type_, found)
            if time.monotonic() >= due:
                yield found
                due = time.monotonic() + PROGRESS_SECONDS
        found.after = None
        yield found


def broken_by(config: ScannedConfig, type_: IntegrationType, *, is_masked: bool = False) -> tuple[Violation, ...]:
    """Where a config breaks its type, the first thousand places; empty if it conforms."""
    if config.configuration is None:
        return (UNOPENED,)
    violations = type_.violations(config.configuration, most=MAX_BROKEN)
    return tuple((violation.hidden(type_.place) if is_masked else violation).as_fault() for violation in violations)


def _check(config: ScannedConfig, type_: IntegrationType, found: ConformanceReport) -> None:
    found.checked += 1
    violations = broken_by(config, type_)
    if violations:
        found.broken += 1
        if len(found.configs) < MAX_BROKEN:
            found.configs.append(NonconformingConfig(config.key, config.version, violations))
