"""All routes of the service, and the router that calls their handlers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from confide import __version__
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
from confide.web.router import BoundRoute, Router, bind

if TYPE_CHECKING:
    from confide.server.process import Process

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Feature(Generic[S]):
    """The routes of a feature, and how to build the instance that handles them from the parts of a process."""

    routes: tuple[Route[S], ...]
    build: Callable[[Process], S]

    def bind(self, process: Process) -> list[BoundRoute]:
        return bind(self.routes, self.build(process))


# `Any`, because each feature's routes have another class of handlers.
FEATURES: tuple[Feature[Any], ...] = (
    Feature(
        reads.ROUTES,
        lambda process: reads.ReadRoutes(process.reads.reader, process.reads.audited_reader, process.reads.statistics),
    ),
    Feature(
        configs.ROUTES,
        lambda process: configs.ConfigRoutes(
            process.configs.writer,
            process.configs.lister,
            process.configs.history,
            process.configs.exporter,
            process.configs.tenants,
            format_position=process.positions.format,
        ),
    ),
    Feature(
        changes.ROUTES,
        lambda process: changes.WatchRoutes(process.changes.hub, process.positions),
    ),
    Feature(
        integration_types.ROUTES,
        lambda process: integration_types.TypeRoutes(
            process.types.manager, process.types.conformance, epoch=process.stores.epoch
        ),
    ),
    Feature(
        identity.ROUTES,
        lambda process: identity.IdentityRoutes(
            process.identity.users,
            process.identity.tokens,
            setup_token=process.setup_token,
            is_setup_token_optional=process.settings.is_setup_token_optional,
        ),
    ),
    Feature(
        audit.ROUTES,
        lambda process: audit.AuditRoutes(process.audit.log, format_position=process.positions.format),
    ),
    Feature(
        health.ROUTES,
        lambda process: health.HealthRoutes(
            health.Health(
                database=process.stores.database,
                change_feed=process.stores.change_feed,
                lease=process.caching.lease,
                reader=process.reads.reader,
                decrypter=process.configs.decrypter,
                stamp_file=process.stores.stamp_file,
                has_untrusted_proxy=process.callers.has_untrusted_proxy,
                is_refusing_connections=process.observation.is_refusing_connections,
                altered_rows=process.stores.rows.altered,
                is_draining=lambda: process.draining.is_draining,
                is_unsafe=process.database.is_unsafe,
            ),
            process.metrics,
            has_open_metrics=process.settings.metrics == "open",
            authenticate=process.identity.tokens.authenticate,
        ),
    ),
    Feature(docs_page.ROUTES, lambda _: docs_page.DocsRoutes(build_document)),
)
ROUTES: tuple[Route[Any], ...] = tuple(route for feature in FEATURES for route in feature.routes)


def build_document() -> Json:
    """Build the OpenAPI document of all routes."""
    return openapi.build_document(ROUTES, version=__version__)


def build_router(process: Process) -> Router:
    """Bind all routes to the use cases of a process."""
    bound = chain.from_iterable(feature.bind(process) for feature in FEATURES)
    return Router(bound, authenticate=process.identity.tokens.authenticate)
