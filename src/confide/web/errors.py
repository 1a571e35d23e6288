"""Expected errors of HTTP requests."""

from __future__ import annotations

from confide.errors import ServiceError


class BodyNotExpected(ServiceError):
    code = "body-not-expected"
    sentence = "This call takes no body."


class DuplicateParameter(ServiceError):
    code = "duplicate-parameter"
    sentence = "A parameter is given more than once."


class UnknownParameter(ServiceError):
    code = "unknown-parameter"
    sentence = "A parameter is given that this call does not know."


class MissingParameter(ServiceError):
    code = "missing-parameter"
    sentence = "A parameter that this call needs is missing."


class MalformedParameter(ServiceError):
    code = "malformed-parameter"
    sentence = "A parameter is not written as this call needs it."


class MalformedRequest(ServiceError):
    code = "malformed-request"
    sentence = "The request is not correct HTTP."


class MethodNotAllowed(ServiceError):
    code = "method-not-allowed"
    sentence = "This path does not know that method."

    def __init__(self, *, allowed: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.allowed = allowed


class RequestTimeout(ServiceError):
    code = "request-timeout"
    sentence = "The request took too long to arrive."


class BodyTooLarge(ServiceError):
    code = "body-too-large"
    sentence = "The body is larger than 256 KiB."


class UriTooLong(ServiceError):
    code = "uri-too-long"
    sentence = "The address of the request is longer than 8 KiB."


class HeadersTooLarge(ServiceError):
    code = "headers-too-large"
    sentence = "The headers of the request are too large or too many."


class ContentTypeUnsupported(ServiceError):
    code = "content-type-unsupported"
    sentence = "The body must be application/json in UTF-8."


class ContentEncodingUnsupported(ServiceError):
    code = "content-encoding-unsupported"
    sentence = "The body must be sent without a content coding."


class InternalError(ServiceError):
    code = "internal-error"
    sentence = "Something here is broken. The log knows more under the request id."
