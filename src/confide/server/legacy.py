"""The old contract, and all that is known of it: turns an old request into a new one before anything looks.

To end it for good, delete this module and its one use in `door`.
"""

from __future__ import annotations

from urllib.parse import unquote_plus

from confide import strict_json
from confide.errors import ServiceError
from confide.identity.errors import TwoCredentials
from confide.web.errors import BodyTooLarge, DuplicateParameter, RequestTimeout
from confide.web.request import Call

# RFC 9745: since when it is deprecated, 2026-11-24.
DEPRECATION = (b"deprecation", b"@1795478400")
_PATHS_WITH_TOKENS_IN_BODIES = frozenset({"/config", "/user"})


async def translate(call: Call) -> bool:
    """Change the call in place if it is an old one; returns whether it was."""
    if call.path == "/login" and call.method == "GET":
        _login(call)
        return True
    return _token_of_query(call) or await _token_of_body(call)


def _login(call: Call) -> None:
    """`GET /login?login=&password=` becomes `POST /login` with a body."""
    body = strict_json.write(call.parameters(needed=("login", "password")))
    call.replace_body(body)
    call.method = call.scope["method"] = "POST"
    call.scope["query_string"] = b""


def _token_of_query(call: Call) -> bool:
    if b"token=" not in call.scope["query_string"]:
        return False
    parts = [part for part in call.scope["query_string"].split(b"&") if part]
    tokens = [part for part in parts if part.startswith(b"token=")]
    if not tokens:
        return False
    if len(tokens) > 1:
        raise DuplicateParameter("The parameter token is given more than once.")
    call.scope["query_string"] = b"&".join(part for part in parts if part is not tokens[0])
    _show(call, unquote_plus(tokens[0].removeprefix(b"token=").decode("latin-1")))
    return True


async def _token_of_body(call: Call) -> bool:
    if call.method == "GET" or call.path not in _PATHS_WITH_TOKENS_IN_BODIES or _is_shown(call):
        return False
    try:
        document = await call.document()
    except (BodyTooLarge, RequestTimeout):
        raise
    except ServiceError:
        # Whatever is wrong with it is said in its turn: there is no token in it.
        return False
    token = document.pop("token", None)
    if not isinstance(token, str):
        return False
    call.replace_body(strict_json.write(document))
    _show(call, token)
    return True


def _show(call: Call, token: str) -> None:
    if _is_shown(call):
        raise TwoCredentials
    visible = token.encode("latin-1", "replace")
    call.add_header(b"authorization", b"Bearer " + visible)


def _is_shown(call: Call) -> bool:
    return call.has(b"authorization")
