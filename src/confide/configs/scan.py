"""Scan and decrypt many current configs without blocking the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from confide.configs.decryption import ConfigDecrypter
from confide.configs.errors import Superseded
from confide.configs.model import ANY_CONFIG, ConfigFilter
from confide.crypto.errors import IntegrityBroken
from confide.identity.model import Principal, Scope
from confide.names import ConfigKey

if TYPE_CHECKING:
    from confide.configs.store import ConfigStore

# The number of configs that one query reads.
BATCH_SIZE = 50
# A scan runs for this time, then sleeps for the same time, so that other tasks can run.
SLICE_SECONDS = 0.001


class ScannedConfig(NamedTuple):
    """One scanned config. Its plaintext is None if it cannot be decrypted."""

    key: ConfigKey
    version: int
    saved_at: int
    plaintext: bytes | None


class ConfigScanner:
    """Scans configs in order of their keys."""

    def __init__(self, configs: ConfigStore, decrypter: ConfigDecrypter) -> None:
        self._configs = configs
        self._decrypter = decrypter

    async def scan(
        self, scopes: Sequence[Sequence[Scope]], *, after: ConfigKey | None, filters: ConfigFilter = ANY_CONFIG
    ) -> AsyncIterator[ScannedConfig]:
        """Yield current configs after a key, if one scope of each group covers them. Skips deleted configs."""
        until = time.monotonic() + SLICE_SECONDS
        while batch := await self._configs.list_encrypted_page(scopes, after=after, limit=BATCH_SIZE, filters=filters):
            for encrypted in batch:
                after = encrypted.current.key
                try:
                    plaintext: bytes | None = await self._decrypter.decrypt(encrypted.current, encrypted.data_key)
                except IntegrityBroken:
                    plaintext = None
                except Superseded:
                    continue  # its tenant was destroyed after the query
                yield ScannedConfig(after, encrypted.current.version, encrypted.saved_at, plaintext)
                if time.monotonic() >= until:
                    await asyncio.sleep(SLICE_SECONDS)
                    until = time.monotonic() + SLICE_SECONDS


def build_scope_groups(requested: Scope, principal: Principal) -> list[list[Scope]]:
    """Build the scope groups of a list. A caller sees a config if one scope of each group covers it."""
    return [[requested], *([grant.scope for grant in group] for group in principal.grant_groups)]
