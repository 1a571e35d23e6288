"""Build problem documents (RFC 9457) from errors. One table maps the kinds of errors to statuses."""

from __future__ import annotations

import http
import logging
import secrets
from typing import Any

from confide import strict_json
from confide.crypto.errors import MasterKeyMissing, MasterKeyUnavailable
from confide.errors import (
    DatabaseFull,
    DatabaseUnavailable,
    ErrorKind,
    ServiceError,
    StorageFull,
    StoreUnavailable,
    describe_error,
)
from confide.web.errors import HttpError, InternalError, MethodNotAllowed
from confide.web.response import PROBLEM, Headers, Response
from confide.web.route import ResponseHeader

STORE_RETRY_SECONDS = 1
KEY_RETRY_SECONDS = 60
STORAGE_RETRY_SECONDS = 60
PROBLEM_TYPE = PROBLEM.decode()
# Headers that only errors have. `_build_headers` sends them.
PROBLEM_HEADERS = (
    ResponseHeader("WWW-Authenticate", "string"),
    ResponseHeader("Allow", "string"),
    ResponseHeader("ETag", "string"),
    ResponseHeader("Retry-After", "integer"),
)

_log = logging.getLogger("confide")

STATUS: dict[ErrorKind, int] = {
    ErrorKind.INVALID_REQUEST: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.GONE: 410,
    ErrorKind.PRECONDITION_FAILED: 412,
    ErrorKind.INVALID_CONTENT: 422,
    ErrorKind.RATE_LIMITED: 429,
    ErrorKind.INTERNAL: 500,
    ErrorKind.UNAVAILABLE: 503,
}
# RFC 6750, section 3: a challenge has an error code only if the request had credentials.
_CHALLENGES = {
    "no-token": b'Bearer realm="confide"',
    "invalid-token": b'Bearer realm="confide", error="invalid_token"',
    "two-credentials": b'Bearer realm="confide", error="invalid_request"',
    "login-failed": b'Bearer realm="confide"',
}


def get_status(error: type[ServiceError]) -> int:
    return error.status if issubclass(error, HttpError) else STATUS[error.kind]


def list_errors() -> list[type[ServiceError]]:
    """List the error classes of all imported modules."""
    return [error for error in (*ServiceError.__subclasses__(), *HttpError.__subclasses__()) if error is not HttpError]


def build_error_response(error: Exception, *, request_id: str) -> Response:
    """Build the response to an exception. An unexpected one is a bug: its traceback goes only to the log."""
    if isinstance(error, ServiceError):
        return build_problem(error)
    if isinstance(error, DatabaseFull):
        return build_problem(StorageFull(retry_after_seconds=STORAGE_RETRY_SECONDS))
    if isinstance(error, DatabaseUnavailable):
        return build_problem(StoreUnavailable(retry_after_seconds=STORE_RETRY_SECONDS))
    if isinstance(error, MasterKeyMissing):
        _log.error("master_key_missing reason=%s", describe_error(error))
        return build_problem(MasterKeyUnavailable(retry_after_seconds=KEY_RETRY_SECONDS))
    _log.error("request_failed request_id=%s", request_id, exc_info=error)
    return build_problem(InternalError())


def build_bug_response(error: Exception) -> Response:
    """Build the response to a bug outside of a `RequestSpan`, with a new request ID to find it in the log."""
    request_id = secrets.token_hex(8)
    return build_error_response(error, request_id=request_id).with_header(b"request-id", request_id.encode())


def build_problem(error: ServiceError) -> Response:
    """Build the problem document of an error. It contains nothing that the client sent."""
    status = get_status(type(error))
    document: dict[str, Any] = {
        "type": f"/docs/errors#{error.code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": error.code,
        "detail": error.detail,
        "error": error.detail,
    }
    if error.violations:
        document["errors"] = [violation.to_json() for violation in error.violations]
    return Response(strict_json.write(document), status, _build_headers(error), PROBLEM)


def _build_headers(error: ServiceError) -> Headers:
    headers: list[tuple[bytes, bytes]] = []
    if challenge := _CHALLENGES.get(error.code):
        headers.append((b"www-authenticate", challenge))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
    if error.current_tag is not None:
        headers.append((b"etag", error.current_tag.encode()))
    return tuple(headers)
