"""The old contract, and all that is known of it: turns an old request into a new one before anything looks.

To end it for good, delete this module and its one use in `door`.
"""

from __future__ import annotations

from urllib.parse import unquote_plus

from confide import strict_json
from confide.errors import ServiceError
from confide.identity.errors import TwoCredentials
from confide.web.errors import BodyTooLarge, DuplicateParameter, RequestTimeout
from confide.web.request import Request

# RFC 9745: since when it is deprecated, 2026-11-24.
DEPRECATION = (b"deprecation", b"@1795478400")
_PATHS_WITH_TOKENS_IN_BODIES = frozenset({"/config", "/user"})


async def translate(request: Request) -> bool:
    """Change the request in place if it is an old one; returns whether it was."""
    if request.path == "/login" and request.method == "GET":
        _login(request)
        return True
    return _token_of_query(request) or await _token_of_body(request)


def _login(request: Request) -> None:
    """`GET /login?login=&password=` becomes `POST /login` with a body."""
    body = strict_json.write(request.parameters(required=("login", "password")))
    request.replace_body(body)
    request.method = request.scope["method"] = "POST"
    request.scope["query_string"] = b""


def _token_of_query(request: Request) -> bool:
    if b"token=" not in request.scope["query_string"]:
        return False
    parts = [part for part in request.scope["query_string"].split(b"&") if part]
    tokens = [part for part in parts if part.startswith(b"token=")]
    if not tokens:
        return False
    if len(tokens) > 1:
        raise DuplicateParameter("The parameter token is given more than once.")
    request.scope["query_string"] = b"&".join(part for part in parts if part is not tokens[0])
    _show(request, unquote_plus(tokens[0].removeprefix(b"token=").decode("latin-1")))
    return True


async def _token_of_body(request: Request) -> bool:
    if request.method == "GET" or request.path not in _PATHS_WITH_TOKENS_IN_BODIES or _is_shown(request):
        return False
    try:
        document = await request.document()
    except (BodyTooLarge, RequestTimeout):
        raise
    except ServiceError:
        # Whatever is wrong with it is said in its turn: there is no token in it.
        return False
    token = document.pop("token", None)
    if not isinstance(token, str):
        return False
    request.replace_body(strict_json.write(document))
    _show(request, token)
    return True


def _show(request: Request, token: str) -> None:
    if _is_shown(request):
        raise TwoCredentials
    visible = token.encode("latin-1", "replace")
    request.add_header(b"authorization", b"Bearer " + visible)


def _is_shown(request: Request) -> bool:
    return request.has(b"authorization")
