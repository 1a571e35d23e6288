"""Errors of keys and ciphertext."""

from __future__ import annotations

from confide.errors import ServiceError


class MasterKeyMissing(Exception):
    """The store names a master key that the ring lacks, or whose bytes are others."""


class DecryptionFailed(Exception):
    """Sealed bytes do not open: altered, moved, or under a key that is gone."""


class MasterKeyUnavailable(ServiceError):
    code = "master-key-unavailable"
    sentence = "The master key that this needs is not there; whoever runs the service must put it back."


class IntegrityBroken(ServiceError):
    code = "integrity-error"
    sentence = "What is stored for this config does not open; it was altered or its key is gone."
