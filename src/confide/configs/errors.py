"""Expected errors of configs."""

from __future__ import annotations

from confide.errors import ServiceError


class IdempotencyKeyInvalid(ServiceError):
    code = "idempotency-key-invalid"
    sentence = "An Idempotency-Key has 1 to 255 visible ASCII characters."


class VersionPruned(ServiceError):
    code = "version-pruned"
    sentence = "What this version held was erased; its line in the history remains."


class ConfigurationInvalid(ServiceError):
    code = "configuration-invalid"
    sentence = "The configuration must be a JSON object."


class DocumentTooLarge(ServiceError):
    code = "document-too-large"
    sentence = "The configuration would be larger than 256 KiB."


class MaskSentBack(ServiceError):
    code = "mask-sent-back"
    sentence = "A mask stands where a secret should be; send the secret or leave the member out."


class IdempotencyKeyReused(ServiceError):
    code = "idempotency-key-reused"
    sentence = "That Idempotency-Key was used with another body."


class InvalidNote(ServiceError):
    code = "invalid-note"
    sentence = "A note is one line of at most 500 characters."


class ConfirmWrong(ServiceError):
    code = "confirm-wrong"
    sentence = "Repeat the tenant's name in the parameter confirm."


class TooManyRaces(ServiceError):
    code = "too-many-races"
    sentence = "Others saved this config faster, 64 times; try again."
