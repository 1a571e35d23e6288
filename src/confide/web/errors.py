"""Expected errors of HTTP requests."""

from __future__ import annotations

from confide.errors import Refusal


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


class MalformedRequest(Refusal):
    code = "malformed-request"
    sentence = "The request is not correct HTTP."


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


class InternalError(Refusal):
    code = "internal-error"
    sentence = "Something here is broken. The log knows more under the request id."
