"""All routes of the service, and their handlers with the use cases of one process."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

from confide.audit import routes as audit
from confide.changes import routes as changes
from confide.configs import routes as configs
from confide.identity import routes as identity
from confide.integration_types import routes as integration_types
from confide.reads import routes as reads
from confide.server import health
from confide.strict_json import Json
from confide.web import docs_page, openapi
from confide.web.route import Route
from confide.web.router import Router, bind

if TYPE_CHECKING:
    from confide.server.wiring import Process

# Each route names the class of its handlers, so the table as a whole is a mix.
ROUTES: tuple[Route[Any], ...] = (
    *reads.ROUTES,
    *configs.ROUTES,
    *changes.ROUTES,
    *integration_types.ROUTES,
    *identity.ROUTES,
    *audit.ROUTES,
    *health.ROUTES,
    *docs_page.ROUTES,
)


def build_document(*, version: str) -> Json:
    """Build the OpenAPI document of all routes."""
    return openapi.build_document(ROUTES, version=version)


def build_router(process: Process, *, build_document: Callable[[], Json]) -> Router:
    """Bind all routes to the use cases of a process."""
    settings, positions = process.settings, process.positions
    authenticate = process.identity.tokens.principal
    state = health.Health(
        database=process.stores.database,
        change_feed=process.stores.change_feed,
        lease=process.caching.lease,
        reader=process.reads.reader,
        decrypter=process.configs.decrypter,
        is_draining=lambda: process.draining.is_draining,
        is_unsafe=process.database.is_unsafe,
    )
    handlers = chain(
        bind(reads.ROUTES, reads.ReadRoutes(process.reads.reader, process.reads.statistics)),
        bind(
            configs.ROUTES,
            configs.ConfigRoutes(
                process.configs.writer,
                process.configs.history,
                process.configs.exporter,
                process.configs.tenants,
                format_position=positions.format,
            ),
        ),
        bind(
            changes.ROUTES,
            changes.WatchRoutes(process.changes.hub, format_position=positions.format, parse_position=positions.parse),
        ),
        bind(
            integration_types.ROUTES,
            integration_types.TypeRoutes(process.types.manager, process.types.conformance),
        ),
        bind(
            identity.ROUTES,
            identity.IdentityRoutes(
                process.identity.users,
                process.identity.tokens,
                setup_token=process.setup_token,
                is_loopback=settings.is_for_this_machine,
            ),
        ),
        bind(audit.ROUTES, audit.AuditRoutes(process.audit.log, format_position=positions.format)),
        bind(
            health.ROUTES,
            health.HealthRoutes(
                state, process.metrics, has_open_metrics=settings.metrics == "open", authenticate=authenticate
            ),
        ),
        bind(docs_page.ROUTES, docs_page.DocsRoutes(build_document)),
    )
    return Router(handlers, authenticate=authenticate)
