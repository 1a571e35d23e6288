"""Errors of keys and ciphertext."""

from __future__ import annotations

from confide.errors import ErrorKind, ServiceError


class MasterKeyMissing(Exception):
    """The store names a master key that the ring lacks, or whose bytes are others."""


class DecryptionFailed(Exception):
    """Sealed bytes do not open: altered, moved, or under a key that is gone."""


class MasterKeyUnavailable(ServiceError):
    kind = ErrorKind.UNAVAILABLE
    code = "master-key-unavailable"
    sentence = "The required master key is missing. Ask the operator to restore it."


class IntegrityBroken(ServiceError):
    kind = ErrorKind.UNAVAILABLE
    code = "integrity-error"
    sentence = "The stored config cannot be decrypted: it was altered or its key is missing. Tell the operator."
