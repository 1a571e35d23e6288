"""API requests and responses, without I/O."""

from __future__ import annotations

import json
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
    body = None if document is None else json.dumps(document, ensure_ascii=False).encode()
    content_type = {} if body is None else {"Content-Type": "application/json"}
    return ApiRequest(method, path, params or {}, body, {**content_type, **(headers or {})})


def build_save_request(
    method: str, address: dict[str, str], configuration: dict[str, Any] | bytes, *, dry_run: bool = False
) -> ApiRequest:
    """Build a save whose body contains the configuration's JSON text unchanged.

    Raises `ConfideError` unless bytes are exactly one JSON value: other text could add members to the request.
    """
    text = configuration if isinstance(configuration, bytes) else json.dumps(configuration, ensure_ascii=False).encode()
    try:
        json.loads(text.decode(), parse_int=len, parse_float=len)  # `len` avoids converting numbers
    except ValueError:
        raise ConfideError(400, "malformed-json", "The configuration is not valid JSON.") from None
    except RecursionError:
        pass  # the server rejects text that is nested too deeply
    body = json.dumps(address).encode().rstrip(b"}") + b', "configuration": ' + text + b"}"
    return ApiRequest(
        method, "/config", {"dry_run": "true"} if dry_run else {}, body, {"Content-Type": "application/json"}
    )


def parse_response(status: int, body: bytes) -> dict[str, Any]:
    """Parse a response. Raises `ConfideError` for an error status and for a body that is not a JSON object."""
    try:
        document = json.loads(body) if body else {}
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ConfideError(status, "no-answer", "The response does not come from Confide. Check the URL.")
    if status >= HTTPStatus.BAD_REQUEST:
        code, sentence = document.get("code", "unknown"), document.get("detail", "The service returned an error.")
        raise ConfideError(status, code, sentence, errors=document.get("errors"))
    return document
