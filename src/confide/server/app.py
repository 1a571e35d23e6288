"""The application: the framework's routes behind the door, and one document that describes them all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from confide.audit import routes as audit
from confide.configs import history_routes, tenant_routes
from confide.configs.openapi import CONFIG_PATHS
from confide.errors import NotFound
from confide.identity import token_routes, user_routes
from confide.integration_types import routes as types
from confide.server import health
from confide.server.application import Door
from confide.server.services import Services
from confide.web import docs_page
from confide.web.errors import MalformedRequest, MethodNotAllowed
from confide.web.problems import problem
from confide.web.shapes import Problem

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
DESCRIPTION = (
    "Keeps and serves every tenant's integration configuration, sealed at rest. "
    "Every refusal has a code: [all of them](/docs/errors)."
)


def make_app(services: Callable[[], Services], *, version: str, lifespan: Lifespan | None = None) -> Door:
    """Put the routes together; `services` is asked at each request, for they come alive with the process."""
    app = FastAPI(
        title="Confide",
        version=version,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses={"default": {"model": Problem, "description": "A refusal"}},
        exception_handlers={HTTPException: _refused},
    )
    for part in (user_routes, token_routes, history_routes, types, audit, tenant_routes, health, docs_page):
        app.include_router(part.router)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return Door(app, services)


async def _refused(_request: Request, error: Exception) -> Response:
    """What the framework's router refuses, in our form."""
    if not isinstance(error, HTTPException):
        raise error
    known = {404: NotFound, 405: MethodNotAllowed}.get(error.status_code, MalformedRequest)
    response = problem(known()).as_response()
    response.headers.update(error.headers or {})
    return response


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document["components"]
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        document["paths"] = CONFIG_PATHS | document["paths"]
        _tidy(document)
        app.openapi_schema = document
    return app.openapi_schema


def _tidy(document: dict[str, Any]) -> None:
    """Say what is true: refusals are problem documents, and our reader answers none of the framework's 422s."""
    refused = {
        "description": "A refusal",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = refused
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
