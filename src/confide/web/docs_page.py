"""HTTP routes of the API documentation: the OpenAPI document, its page and the list of errors.

The pages load no external resources.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from importlib.resources import files

from confide import strict_json
from confide.errors import NotFound
from confide.strict_json import Json
from confide.web.problems import get_status, list_errors
from confide.web.request import Request
from confide.web.response import POLICY, Response
from confide.web.route import PUBLIC, Route

_HTML = b"text/html; charset=utf-8"
_ASSETS = {
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "swagger-ui.css": b"text/css; charset=utf-8",
    "docs.js": b"text/javascript; charset=utf-8",
}
# The vendored page sets inline styles. Scripts and everything else come from this origin only.
_PAGE_POLICY = (
    POLICY[0],
    b"; ".join(
        (
            b"default-src 'none'",
            b"script-src 'self'",
            b"style-src 'self' 'unsafe-inline'",
            b"img-src 'self' data:",
            b"connect-src 'self'",
            b"frame-ancestors 'none'",
            b"base-uri 'none'",
            b"form-action 'none'",
        )
    ),
)
_PAGE = b"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Confide API</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css"></head>
<body><div id="api"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script><script src="/docs/assets/docs.js"></script></body>
</html>
"""
_ERRORS = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Confide errors</title>
<style>body { font: 16px/1.5 sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top }
tr:target { background: #ffc }</style></head>
<body><h1>Errors</h1>
<p>Every error is a problem document (RFC 9457) with a stable code. <a href="/docs">API documentation</a></p>
<table><thead><tr><th>status</th><th>code</th><th>message</th></tr></thead><tbody>ROWS</tbody></table></body>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#api", validatorUrl: null, deepLinking: true, persistAuthorization: false,
});
"""


class DocsRoutes:
    """Handlers of the documentation."""

    def __init__(self, build_document: Callable[[], Json]) -> None:
        self._build_document = build_document
        self._document: bytes | None = None

    async def read_document(self, request: Request) -> Response:  # noqa: ARG002 - a handler
        if self._document is None:
            self._document = strict_json.write(self._build_document())
        return Response(self._document)

    async def read_page(self, request: Request) -> Response:  # noqa: ARG002 - a handler
        return Response(_PAGE, 200, (_PAGE_POLICY,), _HTML)

    async def list_errors(self, request: Request) -> Response:  # noqa: ARG002 - a handler
        rows = "".join(
            f'<tr id="{error.code}"><td>{get_status(error)}</td><td><code>{error.code}</code></td>'
            f"<td>{html.escape(error.sentence)}</td></tr>"
            for error in sorted(list_errors(), key=lambda error: (get_status(error), error.code))
        )
        return Response(_ERRORS.replace("ROWS", rows).encode(), 200, (_PAGE_POLICY,), _HTML)

    async def read_asset(self, request: Request) -> Response:
        name = request.path_values["name"]
        content_type = _ASSETS.get(name)
        if content_type is None:
            raise NotFound
        if name == "docs.js":
            return Response(_START, 200, (), content_type)
        return Response(files("confide.web").joinpath("vendor", name).read_bytes(), 200, (), content_type)


_TAG = "docs"

ROUTES: tuple[Route[DocsRoutes], ...] = tuple(
    Route(
        "GET", path, handler, access=PUBLIC, operation_id=operation_id, tag=_TAG, summary=summary, is_documented=False
    )
    for path, handler, operation_id, summary in (
        ("/openapi.json", DocsRoutes.read_document, "read_document", "Read the OpenAPI document"),
        ("/docs", DocsRoutes.read_page, "read_page", "Browse the API"),
        ("/docs/errors", DocsRoutes.list_errors, "list_errors", "List errors"),
        ("/docs/assets/{name}", DocsRoutes.read_asset, "read_asset", "Read an asset of the documentation"),
    )
)
