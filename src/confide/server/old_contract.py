"""Translate requests of the old contract to the current one before routing.

To end support for the old contract, delete this module and the one call in `application`.
"""

from __future__ import annotations

from urllib.parse import unquote_plus, urlsplit

from confide import strict_json
from confide.identity.errors import TwoCredentials
from confide.web.errors import CrossSiteRequest, DuplicateParameter
from confide.web.request import Request

# RFC 9745: deprecated since 2026-11-24.
DEPRECATION = (b"deprecation", b"@1795478400")
_PATHS_WITH_BODY_TOKENS = frozenset({"/config", "/user"})


async def translate(request: Request) -> bool:
    """Translate a request in place. Return whether it used the old contract."""
    if request.path == "/login" and request.method == "GET":
        _translate_login(request)
        return True
    return _move_query_token(request) or await _move_body_token(request)


def _translate_login(request: Request) -> None:
    """Turn `GET /login?login=&password=` into `POST /login` with a body.

    Raises `CrossSiteRequest` for a request of another site's page, which could lock out a user with wrong passwords. A
    browser sends a GET for any image or link. It sends no JSON body without asking the server before.
    """
    if _is_cross_site(request):
        raise CrossSiteRequest
    body = strict_json.write(request.parse_parameters(required=("login", "password")))
    request.replace_body(body)
    request.method = request.scope["method"] = "POST"
    request.scope["query_string"] = b""


def _is_cross_site(request: Request) -> bool:
    """Return whether a browser sent the request for a page of another origin (W3C Fetch Metadata, section 2.3)."""
    site = request.find_header(b"sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.find_header(b"origin")
    return origin is not None and urlsplit(origin).netloc.lower() != (request.find_header(b"host") or "").lower()


def _move_query_token(request: Request) -> bool:
    if b"token=" not in request.scope["query_string"]:
        return False
    parts = [part for part in request.scope["query_string"].split(b"&") if part]
    tokens = [part for part in parts if part.startswith(b"token=")]
    if not tokens:
        return False
    if len(tokens) > 1:
        raise DuplicateParameter("Send the parameter token only once.")
    request.scope["query_string"] = b"&".join(part for part in parts if part is not tokens[0])
    _add_credentials(request, unquote_plus(tokens[0].removeprefix(b"token=").decode("latin-1")))
    return True


async def _move_body_token(request: Request) -> bool:
    """Find the token in a body without parsing it strictly: the caller is not authenticated yet."""
    if request.method in ("GET", "HEAD") or request.path not in _PATHS_WITH_BODY_TOKENS or _has_credentials(request):
        return False
    token = await request.find_member("token")
    if not isinstance(token, str):
        return False
    request.has_token_in_body = True
    _add_credentials(request, token)
    return True


def _add_credentials(request: Request, token: str) -> None:
    if _has_credentials(request):
        raise TwoCredentials
    encoded = token.encode("latin-1", "replace")
    request.add_header(b"authorization", b"Bearer " + encoded)


def _has_credentials(request: Request) -> bool:
    return request.has_header(b"authorization")
