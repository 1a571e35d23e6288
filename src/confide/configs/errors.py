"""Expected errors of configs."""

from __future__ import annotations

from confide.errors import Refusal


class IdempotencyKeyInvalid(Refusal):
    code = "idempotency-key-invalid"
    sentence = "An Idempotency-Key has 1 to 255 visible ASCII characters."


class VersionPruned(Refusal):
    code = "version-pruned"
    sentence = "What this version held was erased; its line in the history remains."


class ConfigurationInvalid(Refusal):
    code = "configuration-invalid"
    sentence = "The configuration must be a JSON object."


class DocumentTooLarge(Refusal):
    code = "document-too-large"
    sentence = "The configuration would be larger than 256 KiB."


class MaskSentBack(Refusal):
    code = "mask-sent-back"
    sentence = "A mask stands where a secret should be; send the secret or leave the member out."


class IdempotencyKeyReused(Refusal):
    code = "idempotency-key-reused"
    sentence = "That Idempotency-Key was used with another body."


class InvalidNote(Refusal):
    code = "invalid-note"
    sentence = "A note is one line of at most 500 characters."


class ConfirmWrong(Refusal):
    code = "confirm-wrong"
    sentence = "Repeat the tenant's name in the parameter confirm."


class TooManyRaces(Refusal):
    code = "too-many-races"
    sentence = "Others saved this config faster, 64 times; try again."
