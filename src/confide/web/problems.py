"""The one table that turns refusals into statuses, and their form as problem documents (RFC 9457)."""

from __future__ import annotations

import http
import logging
import secrets
from typing import Any

from confide import errors, strict_json
from confide.changes.errors import PositionGone
from confide.configs.errors import (
    ConfigurationInvalid,
    ConfirmWrong,
    DocumentTooLarge,
    IdempotencyKeyInvalid,
    IdempotencyKeyReused,
    InvalidNote,
    MaskSentBack,
    TooManyRaces,
    VersionPruned,
)
from confide.crypto.errors import IntegrityBroken, MasterKeyMissing, MasterKeyUnavailable
from confide.errors import DatabaseUnavailable, ServiceError
from confide.identity.errors import (
    InvalidGrant,
    InvalidLogin,
    InvalidToken,
    LastAdmin,
    LoginFailed,
    NoToken,
    PasswordCommon,
    PasswordMissing,
    PasswordTooLong,
    PasswordTooShort,
    RateLimited,
    TwoCredentials,
    UserExists,
)
from confide.integration_types.errors import SchemaBroken, SchemaInvalid
from confide.web.errors import (
    BodyNotExpected,
    BodyTooLarge,
    ContentEncodingUnsupported,
    ContentTypeUnsupported,
    DuplicateParameter,
    HeadersTooLarge,
    InternalError,
    MalformedParameter,
    MalformedRequest,
    MethodNotAllowed,
    MissingParameter,
    RequestTimeout,
    UnknownParameter,
    UriTooLong,
)
from confide.web.response import PROBLEM, Headers, Response

PROBLEM_TYPE = PROBLEM.decode()
STORE_RETRY_SECONDS = 1
KEY_RETRY_SECONDS = 60

_log = logging.getLogger("confide")

STATUS: dict[type[ServiceError], int] = {
    errors.JsonInvalid: 400,
    errors.JsonEncoding: 400,
    errors.JsonSurrogate: 400,
    errors.JsonDuplicateKey: 400,
    errors.NotAnObject: 400,
    errors.UnknownMember: 400,
    BodyNotExpected: 400,
    DuplicateParameter: 400,
    UnknownParameter: 400,
    MissingParameter: 400,
    MalformedParameter: 400,
    errors.InvalidCursor: 400,
    MalformedRequest: 400,
    errors.PreconditionInvalid: 400,
    IdempotencyKeyInvalid: 400,
    TwoCredentials: 400,
    NoToken: 401,
    InvalidToken: 401,
    LoginFailed: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimeout: 408,
    UserExists: 409,
    LastAdmin: 409,
    PositionGone: 410,
    VersionPruned: 410,
    errors.VersionConflict: 412,
    BodyTooLarge: 413,
    UriTooLong: 414,
    ContentTypeUnsupported: 415,
    ContentEncodingUnsupported: 415,
    errors.InvalidName: 422,
    InvalidLogin: 422,
    InvalidGrant: 422,
    errors.InvalidBody: 422,
    ConfigurationInvalid: 422,
    errors.JsonNul: 422,
    errors.NumberOutOfRange: 422,
    errors.TooDeep: 422,
    errors.TooManyMembers: 422,
    errors.KeyTooLong: 422,
    errors.StringTooLong: 422,
    DocumentTooLarge: 422,
    MaskSentBack: 422,
    IdempotencyKeyReused: 422,
    InvalidNote: 422,
    PasswordTooShort: 422,
    PasswordTooLong: 422,
    PasswordCommon: 422,
    PasswordMissing: 422,
    SchemaInvalid: 422,
    SchemaBroken: 422,
    ConfirmWrong: 422,
    RateLimited: 429,
    HeadersTooLarge: 431,
    InternalError: 500,
    errors.Busy: 503,
    TooManyRaces: 503,
    errors.StoreUnavailable: 503,
    MasterKeyUnavailable: 503,
    IntegrityBroken: 503,
}
# RFC 6750, section 3: a challenge, with an error code only where credentials were sent.
_CHALLENGE: dict[type[ServiceError], bytes] = {
    NoToken: b'Bearer realm="confide"',
    InvalidToken: b'Bearer realm="confide", error="invalid_token"',
    TwoCredentials: b'Bearer realm="confide", error="invalid_request"',
    LoginFailed: b'Bearer realm="confide"',
}


def answer_for(error: Exception, *, request_id: str) -> Response:
    """The answer to whatever was raised; what is no refusal is a bug of ours, and only the log knows more."""
    if isinstance(error, ServiceError):
        return problem(error)
    if isinstance(error, DatabaseUnavailable):
        return problem(errors.StoreUnavailable(retry_after_seconds=STORE_RETRY_SECONDS))
    if isinstance(error, MasterKeyMissing):
        _log.error("%s", error)
        return problem(MasterKeyUnavailable(retry_after_seconds=KEY_RETRY_SECONDS))
    _log.error("a bug, met by request %s", request_id, exc_info=error)
    return problem(InternalError())


def bug(error: Exception) -> Response:
    """The answer where not even a request was begun: it gets an id now, for it must be found in the log."""
    request_id = secrets.token_hex(8)
    return answer_for(error, request_id=request_id).with_header(b"request-id", request_id.encode())


def problem(refusal: ServiceError) -> Response:
    """Write a refusal as a problem document; it never holds what the caller sent."""
    status = STATUS[type(refusal)]
    document: dict[str, Any] = {
        "type": f"/docs/errors#{refusal.code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": refusal.code,
        "detail": refusal.detail,
        "error": refusal.detail,
    }
    if refusal.violations:
        document["errors"] = [violation.as_json() for violation in refusal.violations]
    return Response(strict_json.write(document), status, _headers(refusal), PROBLEM)


def _headers(refusal: ServiceError) -> Headers:
    headers: list[tuple[bytes, bytes]] = []
    if challenge := _CHALLENGE.get(type(refusal)):
        headers.append((b"www-authenticate", challenge))
    if isinstance(refusal, MethodNotAllowed):
        headers.append((b"allow", ", ".join(refusal.allowed).encode()))
    if refusal.retry_after_seconds is not None:
        headers.append((b"retry-after", str(refusal.retry_after_seconds).encode()))
    if refusal.current_version is not None:
        headers.append((b"etag", f'"{refusal.current_version}"'.encode()))
    return tuple(headers)
