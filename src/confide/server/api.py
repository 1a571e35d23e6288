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
    from confide.server.services import Services

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


def build_router(services: Services, *, build_document: Callable[[], Json]) -> Router:
    """Bind all routes to the use cases of this process."""
    authenticate = services.tokens.principal
    state = health.Health(
        store=services.store,
        change_feed=services.store.news,
        lease=services.lease,
        reader=services.reading,
        decrypter=services.opener,
        is_draining=lambda: services.is_draining,
        is_unsafe=services.is_unsafe,
    )
    handlers = chain(
        bind(reads.ROUTES, reads.ReadRoutes(services.reading, services.usage)),
        bind(
            configs.ROUTES,
            configs.ConfigRoutes(
                services.configs,
                services.history,
                services.exporting,
                services.tenants,
                format_position=services.position,
            ),
        ),
        bind(
            changes.ROUTES,
            changes.WatchRoutes(
                services.watching, format_position=services.position, parse_position=services.position_of
            ),
        ),
        bind(integration_types.ROUTES, integration_types.TypeRoutes(services.types, services.conformance)),
        bind(
            identity.ROUTES,
            identity.IdentityRoutes(
                services.accounts,
                services.tokens,
                setup_token=services.setup_token,
                is_loopback=services.is_loopback,
            ),
        ),
        bind(audit.ROUTES, audit.AuditRoutes(services.audit, format_position=services.position)),
        bind(
            health.ROUTES,
            health.HealthRoutes(
                state, services.metrics, has_open_metrics=services.has_open_metrics, authenticate=authenticate
            ),
        ),
        bind(docs_page.ROUTES, docs_page.DocsRoutes(build_document)),
    )
    return Router(handlers, authenticate=authenticate)
