"""Every expected no of the service, each with its stable code and one plain sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One place of a body that is not allowed: where and why, never what."""

    pointer: str
    code: str
    detail: str

    def as_json(self) -> dict[str, str]:
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


class ServiceError(Exception):
    """An expected no. `code` is stable; the sentence never repeats what the caller sent."""

    code: ClassVar[str]
    sentence: ClassVar[str]

    def __init__(
        self,
        detail: str | None = None,
        *,
        violations: tuple[Violation, ...] = (),
        retry_after_seconds: int | None = None,
        current_version: int | None = None,
    ) -> None:
        super().__init__(detail or self.sentence)
        self.detail = detail or self.sentence
        self.violations = violations
        self.retry_after_seconds = retry_after_seconds
        self.current_version = current_version


# The bytes are not what they claim to be.


class JsonInvalid(ServiceError):
    code = "json-invalid"
    sentence = "The body is not valid JSON."


class JsonEncoding(ServiceError):
    code = "json-encoding"
    sentence = "The body is not UTF-8."


class JsonSurrogate(ServiceError):
    code = "json-surrogate"
    sentence = "The body holds half of a surrogate pair, which is no character."


class JsonDuplicateKey(ServiceError):
    code = "json-duplicate-key"
    sentence = "An object of the body has the same member twice."


class NotAnObject(ServiceError):
    code = "not-an-object"
    sentence = "The body must be a JSON object."


class UnknownMember(ServiceError):
    code = "unknown-member"
    sentence = "The body has a member that this call does not know."


class InvalidCursor(ServiceError):
    code = "invalid-cursor"
    sentence = "That is no place in this list."


class PreconditionInvalid(ServiceError):
    code = "precondition-invalid"
    sentence = "The condition is not written as RFC 9110 says."


# Who is asking, and may they?


class NotAllowed(ServiceError):
    code = "not-allowed"
    sentence = "Your role does not allow this."


class NotFound(ServiceError):
    code = "not-found"
    sentence = "There is nothing here."


# How the request was sent.


# What is stored says no.


class VersionConflict(ServiceError):
    code = "version-conflict"
    sentence = "The config is not in the state that the condition names; nothing was stored."


# Well-formed, but not allowed.


class InvalidName(ServiceError):
    code = "invalid-name"
    sentence = "A name has 1 to 128 of A-Z a-z 0-9 . _ - and begins and ends with a letter or digit."


class InvalidBody(ServiceError):
    code = "invalid-body"
    sentence = "The body is not what this call needs."


class JsonNul(ServiceError):
    code = "json-nul"
    sentence = "The character NUL is not allowed."


class NumberOutOfRange(ServiceError):
    code = "number-out-of-range"
    sentence = "A number cannot be kept exactly as it was sent."


class TooDeep(ServiceError):
    code = "too-deep"
    sentence = "The body has more than 32 levels."


class TooManyMembers(ServiceError):
    code = "too-many-members"
    sentence = "An object has more than 2,000 members."


class KeyTooLong(ServiceError):
    code = "key-too-long"
    sentence = "A member name is longer than 256 bytes."


class StringTooLong(ServiceError):
    code = "string-too-long"
    sentence = "A string is longer than 64 KiB."


# Not now.


class Busy(ServiceError):
    code = "busy"
    sentence = "Too much work is waiting; try again."


class StoreUnavailable(ServiceError):
    code = "store-unavailable"
    sentence = "The store does not answer; try again. A save in flight may or may not have happened."


class DatabaseUnavailable(Exception):
    """The store does not answer, or not in time."""
