"""Decrypt stored versions, and report those that cannot be decrypted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from confide.configs.errors import Superseded, VersionPruned
from confide.configs.model import KnownVersion, StoredVersion
from confide.crypto.errors import DecryptionFailed, IntegrityBroken
from confide.crypto.model import EncryptionContext, WrappedKey
from confide.epoch import CurrentEpoch
from confide.errors import DatabaseUnavailable
from confide.names import ConfigKey

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.configs.store import ConfigStore
    from confide.crypto.envelope import EnvelopeEncryption

VERSION_MISSING = "The database returned an older version of this config than before. Tell the operator."

_log = logging.getLogger("confide")


class ConfigDecrypter:
    """Decrypts stored versions. `undecryptable` holds the current versions that failed, for the health check."""

    def __init__(
        self, configs: ConfigStore, encryption: EnvelopeEncryption, recorder: AuditRecorder, *, epoch: CurrentEpoch
    ) -> None:
        self._configs = configs
        self._encryption = encryption
        self._recorder = recorder
        self.undecryptable: set[tuple[ConfigKey, int]] = set()
        # Older versions that failed. Each is reported once, not for each read.
        self._reported_versions: set[tuple[ConfigKey, int]] = set()
        # The number of the newest version of each config whose row is gone, also for the health check. Versions can be
        # lost at the end of an epoch.
        self.missing: dict[ConfigKey, int] = {}
        epoch.call_on_end(self.missing.clear)

    async def decrypt(self, stored: StoredVersion, data_key: WrappedKey | None) -> bytes:
        """Decrypt the current version of a config, with the data key of its tenant if the caller has read it.

        Raises `IntegrityBroken`, or `Superseded` if the version is no longer the current one.
        """
        context = EncryptionContext(stored.key, stored.version, stored.kind)
        try:
            plaintext = await self._encryption.decrypt(stored.body or b"", context, data_key=data_key)
        except DecryptionFailed:
            if await self._configs.read(stored.key) != stored:
                # The row changed after it was read, so this is not corruption.
                raise Superseded from None
            await self._report_failure(stored)
            raise IntegrityBroken(retry_after_seconds=60) from None
        self.clear_failure(stored.key)
        return plaintext

    async def decrypt_version(self, stored: StoredVersion) -> bytes:
        """Decrypt any version of a config. Raises `VersionPruned` or `IntegrityBroken`."""
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
            if (stored.key, stored.version) not in self._reported_versions:
                _log.error(
                    "version_undecryptable tenant=%s integration_type=%s version=%d", *stored.key, stored.version
                )
                await self._recorder.record(
                    "open", "integrity-error", principal=None, key=stored.key, version=stored.version
                )
                self._reported_versions.add((stored.key, stored.version))
            raise IntegrityBroken(retry_after_seconds=60) from None

    def require_not_older(self, key: ConfigKey, version: int, *, known: KnownVersion) -> None:
        """Raise `IntegrityBroken` if the database returns an older version than the change feed had in this epoch.

        Raises `DatabaseUnavailable` if only another read has returned a newer one. Then a failover may have lost it.
        The next read of the change feed shows whether it did.
        """
        # The cache forgets a config whose version is gone. So only `missing` still has its number.
        newest = max(known.in_feed, self.missing.get(key, 0))
        if version >= max(known.version, newest):
            self.missing.pop(key, None)
            return
        if version >= newest:
            raise DatabaseUnavailable("The database returned an older version than before.")
        self.report_removed(key, newest, found_version=version)
        raise IntegrityBroken(VERSION_MISSING, retry_after_seconds=60)

    def report_removed(self, key: ConfigKey, version: int, *, found_version: int | None = None) -> None:
        """Report a version that was removed without Confide, once."""
        if key not in self.missing:
            self.missing[key] = version
            _log.error(
                "config_version_missing tenant=%s integration_type=%s version=%d found_version=%d",
                *key,
                version,
                version - 1 if found_version is None else found_version,
            )

    def clear_failure(self, key: ConfigKey) -> None:
        """Record that the current version of a config can be decrypted."""
        if self.undecryptable:
            self.undecryptable = {version for version in self.undecryptable if version[0] != key}

    async def _report_failure(self, stored: StoredVersion) -> None:
        # Once for each version, not for each read.
        if (stored.key, stored.version) in self.undecryptable:
            return
        self.undecryptable.add((stored.key, stored.version))
        _log.error("config_undecryptable tenant=%s integration_type=%s version=%d", *stored.key, stored.version)
        await self._recorder.record("open", "integrity-error", principal=None, key=stored.key)
