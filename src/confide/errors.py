"""The errors that a client can expect. Each has a stable code, a kind and one plain sentence."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

# A response lists at most this many violations of a configuration, and its pointers have at most this many characters
# together: one pointer can have 8,000.
MAX_LISTED_VIOLATIONS = 1_000
MAX_POINTER_CHARACTERS = 256 * 1024


class ErrorKind(enum.Enum):
    """The kind of an error. `web` maps kinds to HTTP statuses."""

    INVALID_REQUEST = enum.auto()
    INVALID_CONTENT = enum.auto()
    UNAUTHENTICATED = enum.auto()
    FORBIDDEN = enum.auto()
    NOT_FOUND = enum.auto()
    CONFLICT = enum.auto()
    GONE = enum.auto()
    PRECONDITION_FAILED = enum.auto()
    RATE_LIMITED = enum.auto()
    INTERNAL = enum.auto()
    UNAVAILABLE = enum.auto()


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid place in a body: its JSON Pointer and the reason, never its value."""

    pointer: str
    code: str
    detail: str

    def to_json(self) -> dict[str, str]:
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


def limit_pointers(pointers: Iterable[str]) -> list[str]:
    """Return the first pointers, up to a number and a size that fit into a response."""
    left = MAX_POINTER_CHARACTERS
    limited: list[str] = []
    for pointer in itertools.islice(pointers, MAX_LISTED_VIOLATIONS):
        left -= len(pointer)
        if left < 0 and limited:
            break
        limited.append(pointer)
    return limited


class ServiceError(Exception):
    """An error that a client can expect. Its texts never repeat the client's input."""

    kind: ClassVar[ErrorKind]
    code: ClassVar[str]
    sentence: ClassVar[str]

    def __init__(
        self,
        detail: str | None = None,
        *,
        violations: tuple[Violation, ...] = (),
        retry_after_seconds: int | None = None,
        current_tag: str | None = None,
    ) -> None:
        super().__init__(detail or self.sentence)
        self.detail = detail or self.sentence
        self.violations = violations
        self.retry_after_seconds = retry_after_seconds
        self.current_tag = current_tag


class JsonInvalid(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "json-invalid"
    sentence = "The body is not valid JSON. Check its syntax."


class JsonEncoding(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "json-encoding"
    sentence = "The body is not UTF-8 text. Encode it as UTF-8."


class JsonSurrogate(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "json-surrogate"
    sentence = "A string contains half of a surrogate pair. Send complete Unicode characters."


class JsonDuplicateKey(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "json-duplicate-key"
    sentence = "An object has the same member twice. Send each member once."


class NotAnObject(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "not-an-object"
    sentence = "The body is not a JSON object. Send an object."


class UnknownMember(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "unknown-member"
    sentence = "The body has an unknown member. Check its spelling or remove it."


class InvalidCursor(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "invalid-cursor"
    sentence = "Invalid cursor. Use the `next` value of the previous page."


class PreconditionInvalid(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "precondition-invalid"
    sentence = "Invalid precondition. Send entity tags in double quotes, or * (RFC 9110, section 13.1)."


class NotAllowed(ServiceError):
    kind = ErrorKind.FORBIDDEN
    code = "not-allowed"
    sentence = "Permission denied. Ask an admin for a role that allows this."


class NotFound(ServiceError):
    kind = ErrorKind.NOT_FOUND
    code = "not-found"
    sentence = "Not found. Check the name and your grants."


class VersionConflict(ServiceError):
    kind = ErrorKind.PRECONDITION_FAILED
    code = "version-conflict"
    sentence = "The precondition does not match the current version. Read it again; nothing was stored."


class InvalidName(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "invalid-name"
    sentence = "Invalid name. Use 1 to 128 characters of A-Z a-z 0-9 . _ - that start and end with a letter or digit."


class InvalidBody(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "invalid-body"
    sentence = "Invalid body. Compare it with the API reference."


class JsonNul(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "json-nul"
    sentence = "A string contains the character NUL. Remove it."


class NumberOutOfRange(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "number-out-of-range"
    sentence = "A number cannot be stored exactly. Send fewer digits or a string."


class TooDeep(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "too-deep"
    sentence = "The body is nested more than 32 levels deep. Use fewer levels."


class TooManyMembers(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "too-many-members"
    sentence = "An object has more than 2,000 members. Split it."


class TooManyContainers(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "too-many-containers"
    sentence = "Without a valid token, a body can have at most 100 objects and arrays. Log in first."


class KeyTooLong(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "key-too-long"
    sentence = "A member name is longer than 256 bytes. Shorten it."


class StringTooLong(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "string-too-long"
    sentence = "A string is longer than 64 KiB. Shorten it."


class DocumentTooLarge(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "document-too-large"
    sentence = "The configuration would be larger than 256 KiB. Shorten it."


class Busy(ServiceError):
    kind = ErrorKind.UNAVAILABLE
    code = "busy"
    sentence = "The server is overloaded. Try again later."


class StoreUnavailable(ServiceError):
    kind = ErrorKind.UNAVAILABLE
    code = "store-unavailable"
    sentence = "The database is unavailable. Try again; a save in progress may or may not have been stored."


class StorageFull(ServiceError):
    kind = ErrorKind.UNAVAILABLE
    code = "storage-full"
    sentence = "The storage of the database is full, so nothing was stored. Ask the operator to free space."


class DatabaseUnavailable(Exception):
    """The database did not answer in time or at all."""

    sentence: ClassVar[str] = "The database did not answer in time."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.sentence)


class DatabaseReadOnly(DatabaseUnavailable):
    """The database answers but cannot store: a standby, or a server that its operator made read-only."""

    sentence = "The PostgreSQL server is read-only: it is a standby, or its operator made it so."


class SessionsShared(DatabaseUnavailable):
    """A pooler between this process and the database gives the same session to several clients."""

    sentence = (
        "The database URL leads to a pooler that shares sessions, such as PgBouncer in transaction or statement mode:"
        " use its session mode, or the address of PostgreSQL itself."
    )


class DatabaseFull(DatabaseUnavailable):
    """The database answers but cannot store, because its volume, its quota or its inodes are used up."""

    sentence = "The storage of the database is full."


def describe_error(error: BaseException) -> str:
    """Describe an error in one line, for a log line or a message. Many errors have no text of their own."""
    text = " ".join(str(error).split())
    if text:
        return text
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__
