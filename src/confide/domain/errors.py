"""Every expected no of the service, each with its stable code and one plain sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One place of a body that is not allowed: where and why, never what."""

    pointer: str
    code: str
    detail: str

    def as_json(self) -> dict[str, str]:
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


class Refusal(Exception):  # noqa: N818 - a refusal is an expected no, not an error
    """An expected no. `code` is stable; the sentence never repeats what the caller sent."""

    code: ClassVar[str]
    sentence: ClassVar[str]

    def __init__(
        self,
        detail: str | None = None,
        *,
        faults: tuple[Fault, ...] = (),
        retry_after_seconds: int | None = None,
        current_version: int | None = None,
    ) -> None:
        super().__init__(detail or self.sentence)
        self.detail = detail or self.sentence
        self.faults = faults
        self.retry_after_seconds = retry_after_seconds
        self.current_version = current_version


# The bytes are not what they claim to be.


class JsonInvalid(Refusal):
    code = "json-invalid"
    sentence = "The body is not valid JSON."


class JsonEncoding(Refusal):
    code = "json-encoding"
    sentence = "The body is not UTF-8."


class JsonSurrogate(Refusal):
    code = "json-surrogate"
    sentence = "The body holds half of a surrogate pair, which is no character."


class JsonDuplicateKey(Refusal):
    code = "json-duplicate-key"
    sentence = "An object of the body has the same member twice."


class NotAnObject(Refusal):
    code = "not-an-object"
    sentence = "The body must be a JSON object."


class UnknownMember(Refusal):
    code = "unknown-member"
    sentence = "The body has a member that this call does not know."


class BodyNotExpected(Refusal):
    code = "body-not-expected"
    sentence = "This call takes no body."


class DuplicateParameter(Refusal):
    code = "duplicate-parameter"
    sentence = "A parameter is given more than once."


class UnknownParameter(Refusal):
    code = "unknown-parameter"
    sentence = "A parameter is given that this call does not know."


class MissingParameter(Refusal):
    code = "missing-parameter"
    sentence = "A parameter that this call needs is missing."


class MalformedParameter(Refusal):
    code = "malformed-parameter"
    sentence = "A parameter is not written as this call needs it."


class InvalidCursor(Refusal):
    code = "invalid-cursor"
    sentence = "That is no place in this list."


class MalformedRequest(Refusal):
    code = "malformed-request"
    sentence = "The request is not correct HTTP."


class PreconditionInvalid(Refusal):
    code = "precondition-invalid"
    sentence = "The condition is not written as RFC 9110 says."


class IdempotencyKeyInvalid(Refusal):
    code = "idempotency-key-invalid"
    sentence = "An Idempotency-Key has 1 to 255 visible ASCII characters."


class TwoCredentials(Refusal):
    code = "two-credentials"
    sentence = "The request carries two credentials; send one."


# Who is asking, and may they?


class NoToken(Refusal):
    code = "no-token"
    sentence = "A token is needed: Authorization: Bearer …"


class InvalidToken(Refusal):
    code = "invalid-token"
    sentence = "The token is not valid, or no longer."


class LoginFailed(Refusal):
    code = "login-failed"
    sentence = "Login or password is wrong."


class NotAllowed(Refusal):
    code = "not-allowed"
    sentence = "Your role does not allow this."


class NotFound(Refusal):
    code = "not-found"
    sentence = "There is nothing here."


class RateLimited(Refusal):
    code = "rate-limited"
    sentence = "Too many failed logins; wait before the next try."


# How the request was sent.


class MethodNotAllowed(Refusal):
    code = "method-not-allowed"
    sentence = "This path does not know that method."


class RequestTimeout(Refusal):
    code = "request-timeout"
    sentence = "The request took too long to arrive."


class BodyTooLarge(Refusal):
    code = "body-too-large"
    sentence = "The body is larger than 256 KiB."


class UriTooLong(Refusal):
    code = "uri-too-long"
    sentence = "The address of the request is longer than 8 KiB."


class HeadersTooLarge(Refusal):
    code = "headers-too-large"
    sentence = "The headers of the request are too large or too many."


class ContentTypeUnsupported(Refusal):
    code = "content-type-unsupported"
    sentence = "The body must be application/json in UTF-8."


class ContentEncodingUnsupported(Refusal):
    code = "content-encoding-unsupported"
    sentence = "The body must be sent without a content coding."


# What is stored says no.


class VersionConflict(Refusal):
    code = "version-conflict"
    sentence = "The config is not in the state that the condition names; nothing was stored."


class UserExists(Refusal):
    code = "user-exists"
    sentence = "There is a user with that login."


class LastAdmin(Refusal):
    code = "last-admin"
    sentence = "The last admin can be neither removed, disabled nor lowered."


class PositionGone(Refusal):
    code = "position-gone"
    sentence = "The log does not reach back to that position, or it belongs to an earlier epoch: read again."


class VersionPruned(Refusal):
    code = "version-pruned"
    sentence = "What this version held was erased; its line in the history remains."


# Well-formed, but not allowed.


class InvalidName(Refusal):
    code = "invalid-name"
    sentence = "A name has 1 to 128 of A-Z a-z 0-9 . _ - and begins and ends with a letter or digit."


class InvalidLogin(Refusal):
    code = "invalid-login"
    sentence = "A login has 1 to 64 of a-z 0-9 . _ - and begins and ends with a letter or digit."


class InvalidGrant(Refusal):
    code = "invalid-grant"
    sentence = "A grant is a role on two patterns: an exact name, a prefix with *, or *; admin only on * and *."


class InvalidBody(Refusal):
    code = "invalid-body"
    sentence = "The body is not what this call needs."


class ConfigurationInvalid(Refusal):
    code = "configuration-invalid"
    sentence = "The configuration must be a JSON object."


class JsonNul(Refusal):
    code = "json-nul"
    sentence = "The character NUL is not allowed."


class NumberOutOfRange(Refusal):
    code = "number-out-of-range"
    sentence = "A number cannot be kept exactly as it was sent."


class TooDeep(Refusal):
    code = "too-deep"
    sentence = "The body has more than 32 levels."


class TooManyMembers(Refusal):
    code = "too-many-members"
    sentence = "An object has more than 2,000 members."


class KeyTooLong(Refusal):
    code = "key-too-long"
    sentence = "A member name is longer than 256 bytes."


class StringTooLong(Refusal):
    code = "string-too-long"
    sentence = "A string is longer than 64 KiB."


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


class PasswordTooShort(Refusal):
    code = "password-too-short"
    sentence = "The password is too short."


class PasswordTooLong(Refusal):
    code = "password-too-long"
    sentence = "The password is longer than 256 characters."


class PasswordCommon(Refusal):
    code = "password-common"
    sentence = "The password is one that everybody guesses first."


class PasswordMissing(Refusal):
    code = "password-missing"
    sentence = "The first user needs a password, or nobody could ever log in."


class SchemaInvalid(Refusal):
    code = "schema-invalid"
    sentence = "That is no JSON Schema 2020-12 that is taken."


class SchemaBroken(Refusal):
    code = "schema-broken"
    sentence = "The configuration breaks the schema of its integration type."


class ConfirmWrong(Refusal):
    code = "confirm-wrong"
    sentence = "Repeat the tenant's name in the parameter confirm."


# Not now.


class Busy(Refusal):
    code = "busy"
    sentence = "Too much work is waiting; try again."


class TooManyRaces(Refusal):
    code = "too-many-races"
    sentence = "Others saved this config faster, 64 times; try again."


class StoreUnavailable(Refusal):
    code = "store-unavailable"
    sentence = "The store does not answer; try again. A save in flight may or may not have happened."


class MasterKeyUnavailable(Refusal):
    code = "master-key-unavailable"
    sentence = "The master key that this needs is not there; whoever runs the service must put it back."


class IntegrityBroken(Refusal):
    code = "integrity-error"
    sentence = "What is stored for this config does not open; it was altered or its key is gone."


class InternalError(Refusal):
    code = "internal-error"
    sentence = "Something here is broken. The log knows more under the request id."
