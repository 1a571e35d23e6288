"""Walking through many current configs with what they hold, while others have their turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from confide import strict_json
from confide.configs.decryption import ConfigDecrypter
from confide.configs.model import ANY_CONFIG, ConfigFilter, Superseded
from confide.crypto.errors import IntegrityBroken
from confide.identity.model import Grant, Principal, Scope
from confide.names import Key
from confide.strict_json import Json

if TYPE_CHECKING:
    from confide.configs.store import ConfigStore

PORTION = 50
# How long a walk works before everybody else may, for as long.
SLICE_SECONDS = 0.001


class ScannedConfig(NamedTuple):
    """One config on the way; without a configuration if what is stored does not open."""

    key: Key
    version: int
    saved_at: int
    configuration: Json | None
    size_bytes: int


class ConfigScanner:
    """Walks in order of key."""

    def __init__(self, configs: ConfigStore, opener: ConfigDecrypter) -> None:
        self._configs = configs
        self._opener = opener

    async def walk(
        self, scopes: Sequence[Sequence[Scope]], *, after: Key | None, more: ConfigFilter = ANY_CONFIG
    ) -> AsyncIterator[ScannedConfig]:
        """Every current config that one scope of each group covers, after a key; raises `DatabaseUnavailable`."""
        until = time.monotonic() + SLICE_SECONDS
        while portion := await self._configs.encrypted_page(scopes, after=after, limit=PORTION, more=more):
            for sealed in portion:
                after, size_bytes = sealed.current.key, 0
                try:
                    opened = await self._opener.opened(sealed.current, sealed.key)
                    configuration, size_bytes = strict_json.read_stored(opened), len(opened)
                except IntegrityBroken:
                    configuration = None
                except Superseded:
                    continue  # its tenant was destroyed meanwhile
                yield ScannedConfig(after, sealed.current.version, sealed.saved_at, configuration, size_bytes)
                if time.monotonic() >= until:
                    await asyncio.sleep(SLICE_SECONDS)
                    until = time.monotonic() + SLICE_SECONDS


def scopes_of(wanted: Scope, principal: Principal) -> list[list[Scope]]:
    """What somebody may see of what is wanted: one scope of each group must cover a key."""
    groups: list[Sequence[Grant]] = (
        [principal.grants] if principal.narrowed is None else [principal.grants, principal.narrowed]
    )
    return [[wanted], *([grant.scope for grant in group] for group in groups)]
