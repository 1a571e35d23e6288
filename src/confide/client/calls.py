"""What a client says and hears, without I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


class ConfideError(Exception):
    """A refusal of the service: its HTTP status, its stable code and its sentence."""

    def __init__(self, status: int, code: str, sentence: str, *, errors: list[dict[str, str]] | None = None) -> None:
        places = "".join(
            f" At {violation['pointer'] or '/'}"
            + ("." if violation["detail"] == sentence else f": {violation['detail'].rstrip('.')}.")
            for violation in errors or []
        )
        super().__init__(sentence + places)
        self.status = status
        self.code = code
        self.errors = errors or []


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One call of the API."""

    method: str
    path: str
    params: dict[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict)


def request(
    method: str,
    path: str,
    *,
    params: dict[str, str] | None = None,
    document: Any = None,
    headers: dict[str, str] | None = None,
) -> ApiRequest:
    body = None if document is None else json.dumps(document, ensure_ascii=False).encode()
    described = {} if body is None else {"Content-Type": "application/json"}
    return ApiRequest(method, path, params or {}, body, {**described, **(headers or {})})


def saving(
    method: str, address: dict[str, str], configuration: dict[str, Any] | bytes, *, dry_run: bool = False
) -> ApiRequest:
    """A save; the configuration's own text is put in as it stands, if it is one JSON value and nothing beside it."""
    text = configuration if isinstance(configuration, bytes) else json.dumps(configuration, ensure_ascii=False).encode()
    try:
        json.loads(text.decode(), parse_int=len, parse_float=len)  # which number it is, the service judges
    except ValueError:
        raise ConfideError(400, "malformed-json", "The configuration is not valid JSON.") from None
    except RecursionError:
        pass  # the service says how deep it may be
    body = json.dumps(address).encode().rstrip(b"}") + b', "configuration": ' + text + b"}"
    return ApiRequest(
        method, "/config", {"dry_run": "true"} if dry_run else {}, body, {"Content-Type": "application/json"}
    )


def answer(status: int, body: bytes) -> dict[str, Any]:
    """Read an answer; raises `ConfideError` for a refusal, and for what is no answer of Confide's."""
    try:
        document = json.loads(body) if body else {}
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ConfideError(status, "no-answer", "What answered there is not Confide.")
    if status >= 400:  # noqa: PLR2004 - where refusals begin
        code, sentence = document.get("code", "unknown"), document.get("detail", "The service refused.")
        raise ConfideError(status, code, sentence, errors=document.get("errors"))
    return document
