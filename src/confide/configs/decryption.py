"""Opening what is stored, and remembering what no longer opens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from confide.configs.errors import VersionPruned
from confide.configs.model import StoredVersion, Superseded
from confide.crypto.errors import DecryptionFailed, IntegrityBroken
from confide.crypto.model import EncryptionContext, WrappedKey
from confide.names import Key

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.configs.store import ConfigStore
    from confide.crypto.envelope import EnvelopeEncryption

_log = logging.getLogger("confide")


class ConfigDecrypter:
    """Opens stored versions; `broken` are those that did not, for health to tell."""

    def __init__(self, configs: ConfigStore, sealer: EnvelopeEncryption, auditor: AuditRecorder) -> None:
        self._configs = configs
        self._sealer = sealer
        self._auditor = auditor
        self.broken: set[tuple[Key, int]] = set()

    async def opened(self, stored: StoredVersion, key: WrappedKey | None) -> bytes:
        """Open a version, with its tenant's key if that is at hand.

        Raises `IntegrityBroken`, or `Superseded` if it was replaced since it was read.
        """
        context = EncryptionContext(stored.key, stored.version, stored.kind)
        try:
            plain = await self._sealer.open(stored.body or b"", context, key=key)
        except DecryptionFailed:
            if await self._configs.read(stored.key) != stored:
                # Its tenant was destroyed since it was read: nothing is broken.
                raise Superseded from None
            await self._report(stored)
            raise IntegrityBroken(retry_after_seconds=60) from None
        self.note_whole(stored.key)
        return plain

    async def opened_version(self, stored: StoredVersion) -> bytes:
        """Open a version that is perhaps not the current one; raises `VersionPruned` or `IntegrityBroken`."""
        if stored.body is None:
            raise VersionPruned
        try:
            return await self._sealer.open(stored.body, EncryptionContext(stored.key, stored.version, stored.kind))
        except DecryptionFailed:
            if await self._sealer.is_erased(stored.body):
                raise VersionPruned(
                    "The data key of this version was destroyed with its tenant. It cannot be decrypted again."
                ) from None
            _log.error("version does not open: tenant %s, integration type %s, version %d", *stored.key, stored.version)
            await self._auditor.record(
                "open", "integrity-error", principal=None, key=stored.key, version=stored.version
            )
            raise IntegrityBroken(retry_after_seconds=60) from None

    def note_whole(self, key: Key) -> None:
        """What is current under a key opens, whatever did not before."""
        if self.broken:
            self.broken = {place for place in self.broken if place[0] != key}

    async def _report(self, stored: StoredVersion) -> None:
        if (stored.key, stored.version) in self.broken:
            return
        self.broken.add((stored.key, stored.version))
        _log.error("config does not open: tenant %s, integration type %s, version %d", *stored.key, stored.version)
        await self._auditor.record("open", "integrity-error", principal=None, key=stored.key)
