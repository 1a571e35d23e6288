"""List configs that a caller can see, and configs that violate the schema of their integration type."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from confide.configs.model import ANY_CONFIG, ConfigFilter, ConfigSummary, TenantSummary
from confide.configs.scan import ConfigScanner, build_scope_groups
from confide.context import PAGE_SECONDS
from confide.errors import Violation
from confide.identity.model import Principal, Role, Scope
from confide.names import ConfigKey

if TYPE_CHECKING:
    from confide.configs.store import ConfigStore
    from confide.fair_scheduler import FairScheduler
    from confide.integration_types.active import ActiveIntegrationTypes

# A page ends with the config that brings its violations to this number. A config has at most 1,000.
MAX_PAGE_VIOLATIONS = 2_000


class ConfigWithViolations(NamedTuple):
    """One config with its violations of the schema of its integration type."""

    key: ConfigKey
    version: int
    saved_at: int
    violations: tuple[Violation, ...]


class NonconformingPage(NamedTuple):
    """One page of configs with violations. The next page starts after `last_key`; None on the last page."""

    configs: list[ConfigWithViolations]
    last_key: ConfigKey | None


class ConfigLister:
    """Lists the configs that a caller can see, in order of their keys, without their configurations."""

    def __init__(
        self, configs: ConfigStore, scanner: ConfigScanner, types: ActiveIntegrationTypes, *, scheduler: FairScheduler
    ) -> None:
        self._scheduler = scheduler
        self._configs = configs
        self._scanner = scanner
        self._types = types

    async def list_configs(
        self,
        scope: Scope,
        *,
        principal: Principal,
        after: ConfigKey | None,
        limit: int,
        filters: ConfigFilter = ANY_CONFIG,
    ) -> Sequence[ConfigSummary]:
        """List the configs in a scope after a key."""
        groups = build_scope_groups(scope, principal)
        return await self._configs.list_page(groups, after=after, limit=limit, filters=filters)

    async def list_tenants(
        self, scope: Scope, *, principal: Principal, after: str | None, limit: int
    ) -> Sequence[TenantSummary]:
        """List the tenants with configs in a scope, after a name."""
        return await self._configs.list_tenants(build_scope_groups(scope, principal), after=after, limit=limit)

    async def list_nonconforming(
        self, scope: Scope, *, principal: Principal, after: ConfigKey | None, limit: int, filters: ConfigFilter
    ) -> NonconformingPage:
        """List configs that violate their schema. A page ends after one second, or with enough violations."""
        until = time.monotonic() + PAGE_SECONDS
        found: list[ConfigWithViolations] = []
        listed = 0
        async for config in self._scanner.scan(build_scope_groups(scope, principal), after=after, filters=filters):
            role = principal.find_role(config.key)
            is_masked = role is None or role < Role.READER
            type_ = await self._types.get(config.key.integration_type)
            listing = partial(type_.list_violations, config.plaintext, is_masked=is_masked)
            violations = await self._scheduler.run(listing, caller=principal.user_id)
            if violations:
                listed += len(violations)
                found.append(ConfigWithViolations(config.key, config.version, config.saved_at, violations))
            if len(found) >= limit or listed >= MAX_PAGE_VIOLATIONS or time.monotonic() >= until:
                return NonconformingPage(found, config.key)
        return NonconformingPage(found, None)
