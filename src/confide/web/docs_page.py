"""`/docs` and `/openapi.json`: what the API is, from files that lie here, without a word to anybody else."""

from __future__ import annotations

import html
from importlib.resources import files

from fastapi import APIRouter

from confide import strict_json
from confide.errors import NotFound
from confide.web.problems import STATUS
from confide.web.response import POLICY, Answer
from confide.web.router import OPEN, Asked, StrictRoute

router = APIRouter(route_class=StrictRoute, include_in_schema=False)

_HTML = b"text/html; charset=utf-8"
_ASSETS = {
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "swagger-ui.css": b"text/css; charset=utf-8",
    "docs.js": b"text/javascript; charset=utf-8",
}
# The vendored page sets styles of its own; scripts and everything else come from here only.
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
<head><meta charset="utf-8"><title>Confide: the API</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css"></head>
<body><div id="api"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script><script src="/docs/assets/docs.js"></script></body>
</html>
"""
_ERRORS = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Confide: refusals</title>
<style>body { font: 16px/1.5 sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top }
tr:target { background: #ffc }</style></head>
<body><h1>Refusals</h1>
<p>Every expected no is a problem document (RFC 9457) with a stable code. <a href="/docs">The API</a></p>
<table><thead><tr><th>status</th><th>code</th><th>sentence</th></tr></thead><tbody>ROWS</tbody></table></body>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#api", validatorUrl: null, deepLinking: true, persistAuthorization: false,
});
"""


@router.get("/openapi.json", openapi_extra=OPEN)
async def document(call: Asked) -> Answer:
    return Answer(strict_json.write(call.scope["app"].openapi()))


@router.get("/docs", openapi_extra=OPEN)
async def page(call: Asked) -> Answer:  # noqa: ARG001 - the same for everybody
    return Answer(_PAGE, 200, (_PAGE_POLICY,), _HTML)


@router.get("/docs/errors", openapi_extra=OPEN)
async def errors(call: Asked) -> Answer:  # noqa: ARG001 - the same for everybody
    rows = "".join(
        f'<tr id="{refusal.code}"><td>{status}</td><td><code>{refusal.code}</code></td>'
        f"<td>{html.escape(refusal.sentence)}</td></tr>"
        for refusal, status in sorted(STATUS.items(), key=lambda pair: (pair[1], pair[0].code))
    )
    text = _ERRORS.replace("ROWS", rows)
    return Answer(text.encode(), 200, (_PAGE_POLICY,), _HTML)


@router.get("/docs/assets/{name}", openapi_extra=OPEN)
async def asset(call: Asked, name: str) -> Answer:  # noqa: ARG001 - the same for everybody
    content_type = _ASSETS.get(name)
    if content_type is None:
        raise NotFound
    if name == "docs.js":
        return Answer(_START, 200, (), content_type)
    return Answer(files("confide.web").joinpath("vendor", name).read_bytes(), 200, (), content_type)
