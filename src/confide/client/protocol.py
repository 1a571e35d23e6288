"""API requests and responses, without I/O."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote


class ConfideError(Exception):
    """An error response of the service, or a failure to reach it.

    `status` is the HTTP status, 0 without a response. `code` is stable. `errors` lists schema violations.
    """

    def __init__(self, status: int, code: str, sentence: str, *, errors: list[dict[str, str]] | None = None) -> None:
        violations = "".join(
            f" At {violation['pointer'] or '/'}"
            + ("." if violation["detail"] == sentence else f": {violation['detail'].rstrip('.')}.")
            for violation in errors or []
        )
        super().__init__(sentence + violations)
        self.status = status
        self.code = code
        self.errors = errors or []


NOT_CONFIDE = "The response does not come from Confide. Check the URL."
# What a proxy answers if it does not reach the service.
_GATEWAY_ERRORS = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
# The server accepts the same characters (RFC 9110, section 5.5).
_TOKEN = re.compile(r"[\x21-\x7e]+")


class ResponseDocument(dict[str, Any]):
    """The members of a response. A missing one is a `ConfideError`: the response comes from another service."""

    def __missing__(self, name: str) -> Any:
        raise ConfideError(0, "no-answer", NOT_CONFIDE)


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request to the API."""

    method: str
    path: str
    params: dict[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict)


def build_path(*segments: str) -> str:
    """Join the segments of a path. Each one is percent-encoded, so a name cannot add segments or a query."""
    return "".join("/" + quote(segment, safe="@") for segment in segments)


def build_request(
    method: str,
    path: str,
    *,
    params: dict[str, str] | None = None,
    document: Any = None,
    headers: dict[str, str] | None = None,
) -> ApiRequest:
    """Build a request. Raises `ConfideError` for text that is not valid Unicode, such as a damaged argument."""
    body = None if document is None else _encode(document)
    content_type = {} if body is None else {"Content-Type": "application/json"}
    return ApiRequest(method, path, params or {}, body, {**content_type, **(headers or {})})


def build_save_request(
    method: str,
    address: dict[str, str],
    configuration: dict[str, Any] | bytes,
    *,
    dry_run: bool = False,
    secrets: str | None = None,
) -> ApiRequest:
    """Build a save. Bytes are the JSON text of the configuration, which the body contains unchanged.

    Raises `ConfideError` unless bytes are exactly one JSON value: other text could add members to the request.
    """
    body = embed_json(address, "configuration", configuration)
    params = {"dry_run": "true"} if dry_run else {}
    if secrets is not None:
        params["secrets"] = secrets
    return ApiRequest(method, "/config", params, body, {"Content-Type": "application/json"})


def build_type_request(
    name: str, members: dict[str, Any], schema: dict[str, Any] | bytes | None, *, dry_run: bool = False
) -> ApiRequest:
    """Build a change of an integration type. Bytes are the JSON text of the schema, which the body contains unchanged.

    Raises `ConfideError` unless bytes are exactly one JSON value.
    """
    params = {"dry_run": "true"} if dry_run else {}
    body = embed_json(members, "schema", schema)
    return ApiRequest("PUT", build_path("integration-types", name), params, body, {"Content-Type": "application/json"})


def embed_json(members: dict[str, Any], name: str, value: dict[str, Any] | bytes | None) -> bytes:
    """Encode an object with these members and one more. Its value can be JSON text, which stays unchanged."""
    text = value if isinstance(value, bytes) else _encode(value)
    require_json(text, f"The {name}")
    before = _encode(members).removesuffix(b"}")
    return before + (b", " if members else b"") + _encode(name) + b": " + text + b"}"


def require_json(text: bytes, subject: str) -> None:
    """Raise `ConfideError` unless the text is one JSON value. The server checks it more strictly."""
    try:
        json.loads(text.decode(), parse_int=len, parse_float=len)  # `len` avoids converting numbers
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfideError(400, "malformed-json", f"{subject} is not UTF-8 at line {line}. Save it as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise ConfideError(
            400, "malformed-json", f"{subject} is not valid JSON at {explain_syntax_error(error)}"
        ) from None
    except RecursionError:
        pass  # the server rejects text that is nested too deeply


def explain_syntax_error(error: json.JSONDecodeError) -> str:
    """Return the place of an error in JSON text, and what is wrong there."""
    reason = error.msg
    if reason.startswith("Invalid control character"):
        reason = "unescaped control character. Write a line break in a string as \\n"
    return f"line {error.lineno}, column {error.colno}: {reason}."


def require_valid_token(token: str) -> None:
    """Raise `ConfideError` if a token cannot be sent in a header."""
    if not _TOKEN.fullmatch(token):
        sentence = "The token contains a character that no token has, such as a space or a line break. Copy it again."
        raise ConfideError(0, "malformed-token", sentence)


def _encode(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfideError(0, "malformed-text", "The request contains text that is not valid Unicode.") from None


def parse_response(status: int, body: bytes) -> dict[str, Any]:
    """Parse a response.

    Raises `ConfideError` for an error status, and for a response that does not come from Confide.
    """
    try:
        document = json.loads(body) if body else {}
    except ValueError:
        document = None
    has_code = isinstance(document, dict) and isinstance(document.get("code"), str)
    if status in _GATEWAY_ERRORS and not has_code:
        sentence = f"A proxy responds {status} instead of Confide. Check that it reaches the service."
        raise ConfideError(status, "no-answer", sentence)
    if not isinstance(document, dict) or (status >= HTTPStatus.BAD_REQUEST and not has_code):
        raise ConfideError(status, "no-answer", NOT_CONFIDE)
    if status >= HTTPStatus.BAD_REQUEST:
        sentence = document.get("detail", "The service returned an error.")
        raise ConfideError(status, document["code"], sentence, errors=document.get("errors"))
    return ResponseDocument(document)
