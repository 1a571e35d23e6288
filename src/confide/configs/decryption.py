"""Decrypt stored versions and remember those that fail."""

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
    """Decrypts stored versions. `broken` lists current versions that failed, for the health check."""

    def __init__(self, configs: ConfigStore, encryption: EnvelopeEncryption, recorder: AuditRecorder) -> None:
        self._configs = configs
        self._encryption = encryption
        self._recorder = recorder
        self.broken: set[tuple[Key, int]] = set()

    async def decrypt(self, stored: StoredVersion, key: WrappedKey | None) -> bytes:
        """Decrypt the current version of a config, with its tenant's data key if the caller has read it.

        Raises `IntegrityBroken`, or `Superseded` if another version replaced it since it was read.
        """
        context = EncryptionContext(stored.key, stored.version, stored.kind)
        try:
            plain = await self._encryption.decrypt(stored.body or b"", context, key=key)
        except DecryptionFailed:
            if await self._configs.read(stored.key) != stored:
                # Its tenant was destroyed since the version was read: nothing is broken.
                raise Superseded from None
            await self._report_broken(stored)
            raise IntegrityBroken(retry_after_seconds=60) from None
        self.mark_intact(stored.key)
        return plain

    async def decrypt_version(self, stored: StoredVersion) -> bytes:
        """Decrypt any version of a config; raises `VersionPruned` or `IntegrityBroken`."""
        if stored.body is None:
            raise VersionPruned
        try:
            return await self._encryption.decrypt(
                stored.body, EncryptionContext(stored.key, stored.version, stored.kind)
            )
        except DecryptionFailed:
            if await self._encryption.is_erased(stored.body):
                raise VersionPruned(
                    "The data key of this version was destroyed with its tenant. It cannot be decrypted again."
                ) from None
            _log.error("version_undecryptable tenant=%s integration_type=%s version=%d", *stored.key, stored.version)
            await self._recorder.record(
                "open", "integrity-error", principal=None, key=stored.key, version=stored.version
            )
            raise IntegrityBroken(retry_after_seconds=60) from None

    def mark_intact(self, key: Key) -> None:
        """Note that the current version of a config can be decrypted."""
        if self.broken:
            self.broken = {version for version in self.broken if version[0] != key}

    async def _report_broken(self, stored: StoredVersion) -> None:
        if (stored.key, stored.version) in self.broken:
            return
        self.broken.add((stored.key, stored.version))
        _log.error("config_undecryptable tenant=%s integration_type=%s version=%d", *stored.key, stored.version)
        await self._recorder.record("open", "integrity-error", principal=None, key=stored.key)
