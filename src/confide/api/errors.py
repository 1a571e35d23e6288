"""The one table that turns refusals into statuses, and their form as problem documents (RFC 9457)."""

from __future__ import annotations

import http
import logging
import secrets
from typing import Any

from confide.api.answers import PROBLEM, Answer, Headers
from confide.domain import bodies, errors
from confide.domain.errors import Refusal
from confide.ports import MasterKeyMissing, Unreachable

STORE_RETRY_SECONDS = 1
KEY_RETRY_SECONDS = 60

_log = logging.getLogger("confide")

STATUS: dict[type[Refusal], int] = {
    errors.JsonInvalid: 400,
    errors.JsonEncoding: 400,
    errors.JsonSurrogate: 400,
    errors.JsonDuplicateKey: 400,
    errors.NotAnObject: 400,
    errors.UnknownMember: 400,
    errors.BodyNotExpected: 400,
    errors.DuplicateParameter: 400,
    errors.UnknownParameter: 400,
    errors.MissingParameter: 400,
    errors.MalformedParameter: 400,
    errors.InvalidCursor: 400,
    errors.MalformedRequest: 400,
    errors.PreconditionInvalid: 400,
    errors.IdempotencyKeyInvalid: 400,
    errors.TwoCredentials: 400,
    errors.NoToken: 401,
    errors.InvalidToken: 401,
    errors.LoginFailed: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.RequestTimeout: 408,
    errors.UserExists: 409,
    errors.LastAdmin: 409,
    errors.PositionGone: 410,
    errors.VersionPruned: 410,
    errors.VersionConflict: 412,
    errors.BodyTooLarge: 413,
    errors.UriTooLong: 414,
    errors.ContentTypeUnsupported: 415,
    errors.ContentEncodingUnsupported: 415,
    errors.InvalidName: 422,
    errors.InvalidLogin: 422,
    errors.InvalidGrant: 422,
    errors.InvalidBody: 422,
    errors.ConfigurationInvalid: 422,
    errors.JsonNul: 422,
    errors.NumberOutOfRange: 422,
    errors.TooDeep: 422,
    errors.TooManyMembers: 422,
    errors.KeyTooLong: 422,
    errors.StringTooLong: 422,
    errors.DocumentTooLarge: 422,
    errors.MaskSentBack: 422,
    errors.IdempotencyKeyReused: 422,
    errors.InvalidNote: 422,
    errors.PasswordTooShort: 422,
    errors.PasswordTooLong: 422,
    errors.PasswordCommon: 422,
    errors.PasswordMissing: 422,
    errors.SchemaInvalid: 422,
    errors.SchemaBroken: 422,
    errors.ConfirmWrong: 422,
    errors.RateLimited: 429,
    errors.HeadersTooLarge: 431,
    errors.InternalError: 500,
    errors.Busy: 503,
    errors.TooManyRaces: 503,
    errors.StoreUnavailable: 503,
    errors.MasterKeyUnavailable: 503,
    errors.IntegrityBroken: 503,
}
# RFC 6750, section 3: a challenge, with an error code only where credentials were sent.
_CHALLENGE: dict[type[Refusal], bytes] = {
    errors.NoToken: b'Bearer realm="confide"',
    errors.InvalidToken: b'Bearer realm="confide", error="invalid_token"',
    errors.TwoCredentials: b'Bearer realm="confide", error="invalid_request"',
    errors.LoginFailed: b'Bearer realm="confide"',
}


def answer_for(error: Exception, *, request_id: str) -> Answer:
    """The answer to whatever was raised; what is no refusal is a bug of ours, and only the log knows more."""
    if isinstance(error, Refusal):
        return problem(error)
    if isinstance(error, Unreachable):
        return problem(errors.StoreUnavailable(retry_after_seconds=STORE_RETRY_SECONDS))
    if isinstance(error, MasterKeyMissing):
        _log.error("%s", error)
        return problem(errors.MasterKeyUnavailable(retry_after_seconds=KEY_RETRY_SECONDS))
    _log.error("a bug, met by request %s", request_id, exc_info=error)
    return problem(errors.InternalError())


def bug(error: Exception) -> Answer:
    """The answer where not even a request was begun: it gets an id now, for it must be found in the log."""
    request_id = secrets.token_hex(8)
    return answer_for(error, request_id=request_id).with_header(b"request-id", request_id.encode())


def problem(refusal: Refusal) -> Answer:
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
    if refusal.faults:
        document["errors"] = [fault.as_json() for fault in refusal.faults]
    return Answer(bodies.write(document), status, _headers(refusal), PROBLEM)


def _headers(refusal: Refusal) -> Headers:
    headers: list[tuple[bytes, bytes]] = []
    if challenge := _CHALLENGE.get(type(refusal)):
        headers.append((b"www-authenticate", challenge))
    if refusal.retry_after_seconds is not None:
        headers.append((b"retry-after", str(refusal.retry_after_seconds).encode()))
    if refusal.current_version is not None:
        headers.append((b"etag", f'"{refusal.current_version}"'.encode()))
    return tuple(headers)
