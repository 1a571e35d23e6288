"""Errors of keys and ciphertexts."""

from __future__ import annotations

from confide.errors import ErrorKind, ServiceError


class MasterKeyMissing(Exception):
    """The database uses a master key that the key ring lacks or that has other bytes."""


class DecryptionFailed(Exception):
    """A ciphertext was altered, moved to another row, or encrypted with a key that no longer exists."""


class MasterKeyUnavailable(ServiceError):
    kind = ErrorKind.UNAVAILABLE
    code = "master-key-unavailable"
    sentence = "The required master key is missing. Ask the operator to restore it."


class IntegrityBroken(ServiceError):
    kind = ErrorKind.UNAVAILABLE
    code = "integrity-error"
    sentence = "The stored config cannot be decrypted: it was altered or its key is missing. Tell the operator."
