"""Errors of HTTP requests."""

from __future__ import annotations

from typing import ClassVar

from confide.errors import ErrorKind, ServiceError


class HttpError(ServiceError):
    """An error of HTTP itself, with its own status."""

    kind = ErrorKind.INVALID_REQUEST
    status: ClassVar[int]


class BodyNotExpected(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "body-not-expected"
    sentence = "This request takes no body. Remove the body."


class DuplicateParameter(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "duplicate-parameter"
    sentence = "A parameter is given more than once. Send it once."


class UnknownParameter(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "unknown-parameter"
    sentence = "Unknown parameter. Check its spelling or remove it."


class MissingParameter(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "missing-parameter"
    sentence = "A required parameter is missing. Add it."


class MalformedParameter(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "malformed-parameter"
    sentence = "A parameter has an invalid value. Check its format in the API reference."


class MalformedRequest(ServiceError):
    kind = ErrorKind.INVALID_REQUEST
    code = "malformed-request"
    sentence = "The request is not valid HTTP. Check the client."


class MethodNotAllowed(HttpError):
    status = 405
    code = "method-not-allowed"
    sentence = "This path does not support the method. Use one of the methods in `Allow`."

    def __init__(self, *, allowed: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.allowed = allowed


class CrossSiteRequest(ServiceError):
    kind = ErrorKind.FORBIDDEN
    code = "cross-site-request"
    sentence = "A page of another site sent this login. Log in with `POST /login`."


class TooManyConnections(ServiceError):
    kind = ErrorKind.UNAVAILABLE
    code = "too-many-connections"
    sentence = "Too many connections are open. Close unused ones, and try again."


class RequestTimeout(HttpError):
    status = 408
    code = "request-timeout"
    sentence = "The request took too long to arrive. Send it again."


class BodyTooLarge(HttpError):
    status = 413
    code = "body-too-large"
    sentence = "The body is larger than 256 KiB. Send a smaller one."


class UriTooLong(HttpError):
    status = 414
    code = "uri-too-long"
    sentence = "The request target is longer than 8 KiB. Shorten it."


class HeadersTooLarge(HttpError):
    status = 431
    code = "headers-too-large"
    sentence = "The request headers are too large or too many. Send fewer."


class ContentTypeUnsupported(HttpError):
    status = 415
    code = "content-type-unsupported"
    sentence = "Unsupported content type. Send application/json in UTF-8."


class ContentEncodingUnsupported(HttpError):
    status = 415
    code = "content-encoding-unsupported"
    sentence = "Unsupported content encoding. Send the body without one."


class InternalError(ServiceError):
    kind = ErrorKind.INTERNAL
    code = "internal-error"
    sentence = "Internal error. Give the request ID to the operator, who can find the cause in the log."
