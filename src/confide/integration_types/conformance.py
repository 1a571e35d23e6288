"""Find the configs that violate the active schema or a draft of a schema."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from confide.context import PAGE_SECONDS
from confide.errors import NotFound, Violation
from confide.identity.model import Principal, Scope
from confide.integration_types.active import ActiveIntegrationTypes
from confide.integration_types.compiled import IntegrationType
from confide.integration_types.masking import Path, SecretPlace, list_masked_leaves
from confide.integration_types.model import TypeDraft
from confide.integration_types.registration import compile_for_registration
from confide.names import ConfigKey
from confide.strict_json import Json, format_pointer, read_stored

if TYPE_CHECKING:
    from confide.configs.scan import ConfigScanner, ScannedConfig
    from confide.fair_scheduler import FairScheduler
    from confide.identity.access import Access

# A page ends when it lists this many configs.
MAX_LISTED = 1_000
# No more configs are listed after one that brings their violations to this number.
MAX_LISTED_VIOLATIONS = 20_000
# The interval between two progress reports.
PROGRESS_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class NonconformingConfig:
    """A config that violates a schema."""

    key: ConfigKey
    version: int
    violations: tuple[Violation, ...]


class CheckedType(NamedTuple):
    """A type to check configs against. `before` is the root of the places that decided what was secret until now."""

    type: IntegrationType
    before: SecretPlace
    warnings: tuple[Violation, ...] = ()


@dataclass(slots=True)
class ConformanceReport:
    """The result so far. `after` is the last checked key, or None at the end."""

    checked: int = 0
    nonconforming: int = 0
    configs: list[NonconformingConfig] = field(default_factory=list)
    # The number of configs with a value that is only now masked, or no longer, by the pointer of the value. In it, `*`
    # stands for any element of a list.
    newly_masked: Counter[str] = field(default_factory=Counter)
    newly_visible: Counter[str] = field(default_factory=Counter)
    after: ConfigKey | None = None
    # The number of violations in `configs`.
    listed: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.configs) >= MAX_LISTED or self.listed >= MAX_LISTED_VIOLATIONS


class ConformanceCheck:
    """Checks the configs of an integration type, for admins. Other requests run between its slices."""

    def __init__(
        self, scanner: ConfigScanner, types: ActiveIntegrationTypes, *, access: Access, scheduler: FairScheduler
    ) -> None:
        self._scheduler = scheduler
        self._scanner = scanner
        self._types = types
        self._access = access

    async def load_type(self, type_: str | TypeDraft, *, principal: Principal) -> CheckedType:
        """Load the active type by name, or compile a draft. Raises `NotFound` or `SchemaInvalid`.

        A draft is compared with the active type, and an active type with the rules of secrets of the previous release.
        """
        await self._access.require_admin(principal, action="check type")
        if isinstance(type_, TypeDraft):
            schema, warnings = (None, ()) if type_.schema is None else compile_for_registration(type_.schema)
            active = await self._types.get(type_.name)
            return CheckedType(IntegrationType(0, schema, mode=type_.mode, keep=type_.keep), active.place, warnings)
        active = await self._types.get(type_)
        if active.schema is None:
            raise NotFound
        return CheckedType(active, active.schema.build_previous_place())

    async def check_page(self, name: str, type_: CheckedType, *, after: ConfigKey | None) -> ConformanceReport:
        """Check the configs after a key for up to a second."""
        until = time.monotonic() + PAGE_SECONDS
        report = ConformanceReport(after=after)
        async for config in self._scanner.scan([[Scope("*", name)]], after=after):
            await self._scheduler.run(partial(_check, config, type_, report), caller=None)
            report.after = config.key
            if time.monotonic() >= until or report.is_full:
                return report
        report.after = None
        return report

    async def check_all(self, name: str, type_: CheckedType) -> AsyncIterator[ConformanceReport]:
        """Check all configs. Yield the result so far every half second, and the final result at the end."""
        report_at = time.monotonic() + PROGRESS_SECONDS
        report = ConformanceReport()
        async for config in self._scanner.scan([[Scope("*", name)]], after=None):
            report.after = config.key
            await self._scheduler.run(partial(_check, config, type_, report), caller=None)
            if time.monotonic() >= report_at:
                yield report
                report_at = time.monotonic() + PROGRESS_SECONDS
        report.after = None
        yield report


def _check(config: ScannedConfig, checked: CheckedType, report: ConformanceReport) -> None:
    report.checked += 1
    violations = checked.type.list_violations(config.plaintext)
    if violations:
        report.nonconforming += 1
        if not report.is_full:
            report.listed += len(violations)
            report.configs.append(NonconformingConfig(config.key, config.version, violations))
    if config.plaintext is not None:
        configuration = read_stored(config.plaintext)
        before = _list_masked_pointers(configuration, checked.before)
        now = _list_masked_pointers(configuration, checked.type.place)
        _count(report.newly_masked, now - before)
        _count(report.newly_visible, before - now)


def _list_masked_pointers(configuration: Json, root: SecretPlace) -> set[str]:
    return {_format_pointer(path) for path in list_masked_leaves(configuration, root)}


def _format_pointer(path: Path) -> str:
    return format_pointer(tuple("*" if isinstance(part, int) else part for part in path))


def _count(counted: Counter[str], pointers: set[str]) -> None:
    counted.update(pointer for pointer in pointers if pointer in counted or len(counted) < MAX_LISTED)
