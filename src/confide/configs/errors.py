"""Errors of configs."""

from __future__ import annotations

from confide.errors import ErrorKind, ServiceError


class IdempotencyKeyInvalid(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "idempotency-key-invalid"
    sentence = "Invalid Idempotency-Key. Use 1 to 255 visible ASCII characters."


class VersionPruned(ServiceError):
    kind = ErrorKind.GONE
    code = "version-pruned"
    sentence = "The content of this version was erased. Choose a version that is still kept."


class ConfigurationInvalid(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "configuration-invalid"
    sentence = "The configuration is not a JSON object. Send an object."


class IdempotencyKeyReused(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "idempotency-key-reused"
    sentence = "This Idempotency-Key was already used with another request. Use a new key."


class InvalidNote(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "invalid-note"
    sentence = "Invalid note. Use one line of at most 500 characters."


class ConfirmWrong(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "confirm-wrong"
    sentence = "Confirmation does not match. Repeat the tenant's name in the parameter `confirm`."


class TooManyRaces(ServiceError):
    kind = ErrorKind.UNAVAILABLE
    code = "too-many-races"
    sentence = "Other clients saved this config first, 64 times. Try again."


class Superseded(Exception):
    """The config, its idempotency record or its data key changed after it was read. Nothing was stored."""


class IdempotencyKeyTaken(Superseded):
    """Another request with the same Idempotency-Key was stored first. Nothing was stored."""
