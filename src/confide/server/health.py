"""HTTP routes of health checks and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from confide.errors import Busy, DatabaseFull, DatabaseReadOnly, DatabaseUnavailable, NotAllowed, SessionsShared
from confide.identity.model import Principal, Role
from confide.server.metrics import CONTENT_TYPE
from confide.web.request import Request
from confide.web.response import Response, build_json_response
from confide.web.route import PUBLIC, MediaType, OtherResponse, Returns, Route, RouteAccess, Target

if TYPE_CHECKING:
    from confide.caching.lease import Lease
    from confide.caching.stamp_file import StampFile
    from confide.changes.feed import ChangeFeed
    from confide.configs.decryption import ConfigDecrypter
    from confide.database.database import Database
    from confide.database.signed_rows import AlteredRows
    from confide.reads.reader import ConfigReader
    from confide.server.metrics import WorkerMetrics

PING_TIMEOUT_SECONDS = 1.0
# A running transaction delays watchers and the audit chain. After this time the service counts as degraded.
MAX_WATERMARK_AGE_SECONDS = 5.0


class HealthShape(BaseModel, title="Health"):
    """The state of one process."""

    status: Literal["ok", "degraded", "unavailable"]
    reasons: list[str]


class Health:
    """Checks the parts of this process."""

    def __init__(
        self,
        *,
        database: Database,
        change_feed: ChangeFeed,
        lease: Lease,
        reader: ConfigReader,
        decrypter: ConfigDecrypter,
        stamp_file: StampFile,
        altered_rows: AlteredRows,
        has_untrusted_proxy: Callable[[], bool],
        is_refusing_connections: Callable[[], bool],
        is_draining: Callable[[], bool],
        is_unsafe: bool,
    ) -> None:
        self._database = database
        self._change_feed = change_feed
        self._lease = lease
        self._reader = reader
        self._decrypter = decrypter
        self._stamp_file = stamp_file
        self._altered_rows = altered_rows
        self._has_untrusted_proxy = has_untrusted_proxy
        self._is_refusing_connections = is_refusing_connections
        self._is_draining = is_draining
        self._is_unsafe = is_unsafe

    async def check(self) -> HealthShape:
        """Return the state. While the database is unavailable and stale reads work, it is degraded."""
        blocking = ["draining"] if self._is_draining() else []
        degrading = ["unsafe-durability"] if self._is_unsafe else []
        degrading += ["integrity-error"] if self._decrypter.undecryptable or self._decrypter.missing else []
        degrading += ["rows-altered"] if self._altered_rows else []
        degrading += ["connections-refused"] if self._is_refusing_connections() else []
        degrading += ["proxy-untrusted"] if self._has_untrusted_proxy() else []
        degrading += ["stamps-unavailable"] if self._stamp_file.check() else []
        if (outage := await self._find_outage()) is not None:
            (blocking if self._reader.is_past_stale_limit() else degrading).append(outage)
        elif (fault := await self._find_storage_fault()) is not None:
            degrading.append(fault)
        elif not self._lease.is_valid():
            degrading.append("news-unavailable")
        elif self._change_feed.compute_watermark_age_seconds() > MAX_WATERMARK_AGE_SECONDS:
            degrading.append("watch-delayed")
        status: Literal["ok", "degraded", "unavailable"] = "ok"
        if blocking or degrading:
            status = "unavailable" if blocking else "degraded"
        return HealthShape(status=status, reasons=blocking + degrading)

    async def _find_outage(self) -> str | None:
        """Return the reason why the database does not serve saves, or None."""
        try:
            async with asyncio.timeout(PING_TIMEOUT_SECONDS):
                await self._database.ping()
        except DatabaseReadOnly:
            return "read-only"
        except SessionsShared:
            return "pooler-mode"
        except (DatabaseUnavailable, Busy, TimeoutError):
            return "store-unavailable"
        return None

    async def _find_storage_fault(self) -> str | None:
        """Return the reason why a database that answers reads cannot store, or None."""
        try:
            async with asyncio.timeout(PING_TIMEOUT_SECONDS):
                await self._database.check_storage()
        except DatabaseFull:
            return "storage-full"
        except DatabaseReadOnly:
            return "read-only"
        except (DatabaseUnavailable, Busy, TimeoutError):
            return "store-unavailable"
        return None


class HealthRoutes:
    """Handlers of health checks and metrics."""

    def __init__(
        self,
        health: Health,
        metrics: WorkerMetrics,
        *,
        has_open_metrics: bool,
        authenticate: Callable[[str], Awaitable[Principal]],
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._has_open_metrics = has_open_metrics
        self._authenticate = authenticate

    async def check_live(self, request: Request) -> Response:  # noqa: ARG002 - a handler
        return build_json_response({"status": "ok", "reasons": []})

    async def check_ready(self, request: Request) -> Response:  # noqa: ARG002 - a handler
        state = await self._health.check()
        return build_json_response(state.model_dump(), status=503 if state.status == "unavailable" else 200)

    async def export_metrics(self, request: Request) -> Response:
        if not self._has_open_metrics:
            request.principal = principal = await self._authenticate(request.require_token())
            if not (principal.is_admin or principal.is_service_account):
                raise NotAllowed
        return Response(self._metrics.render(), content_type=CONTENT_TYPE)


_TAG = "health"

ROUTES: tuple[Route[HealthRoutes], ...] = (
    Route(
        "GET",
        "/health/live",
        HealthRoutes.check_live,
        access=PUBLIC,
        is_probe=True,
        operation_id="live_health_live_get",
        tag=_TAG,
        summary="Check that the process is alive",
        returns=Returns((HealthShape,)),
    ),
    Route(
        "GET",
        "/health/ready",
        HealthRoutes.check_ready,
        access=PUBLIC,
        is_probe=True,
        operation_id="ready_health_ready_get",
        tag=_TAG,
        summary="Check that the process can serve",
        description="200 while this process can answer reads, with status `degraded` and reasons if something is wrong."
        " Otherwise 503.\n\nWhile the database is unavailable, cached configs are still served until they are too old.",
        returns=Returns((HealthShape,)),
        other_responses=(OtherResponse(503, "The process cannot serve.", HealthShape),),
    ),
    Route(
        "GET",
        "/metrics",
        HealthRoutes.export_metrics,
        access=RouteAccess(Target.SERVICE, Role.ADMIN, is_token_optional=True, allows_service_accounts=True),
        operation_id="metrics_metrics_get",
        tag=_TAG,
        summary="Export metrics",
        description="Metrics for Prometheus, with the token of an admin or a service account; without a token if"
        " `CONFIDE_METRICS=open`.",
        returns=Returns(media_types=(MediaType("text/plain"),)),
    ),
)
