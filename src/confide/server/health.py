"""`/health` and `/metrics`: whether the process lives, whether it can answer, and what it counts."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from confide.errors import Busy, DatabaseUnavailable, NotAllowed
from confide.server.metrics import TEXT
from confide.server.shapes import Health
from confide.server.stores import Store
from confide.web.response import Answer, json_answer
from confide.web.router import HALF_OPEN, OPEN, Asked, StrictRoute

ANSWER_SECONDS = 1.0
# Watchers and the audit chain wait for a transaction that is under way: for longer than that, health says so.
HORIZON_SECONDS = 5.0

router = APIRouter(route_class=StrictRoute, tags=["health"])


@router.get("/health/live", response_model=Health, openapi_extra=OPEN, summary="Does the process live?")
async def live(call: Asked) -> Answer:  # noqa: ARG001 - alive is whoever answers
    return json_answer({"status": "ok", "reasons": []})


@router.get(
    "/health/ready",
    response_model=Health,
    responses={503: {"model": Health}},
    openapi_extra=OPEN,
    summary="Can it answer?",
)
async def ready(call: Asked) -> Answer:
    """200 while this process can answer reads, `degraded` with reasons if something is not as it should be; else 503.

    While the store does not answer, what is in memory still does, until it is too old.
    """
    services = call.services
    hindered = ["draining"] if services.is_draining else []
    worrying = ["unsafe-durability"] if services.is_unsafe else []
    worrying += ["integrity-error"] if services.opener.broken else []
    if not await _answers(services.store):
        (hindered if services.reading.is_past_stale() else worrying).append("store-unavailable")
    elif not services.lease.holds():
        worrying.append("news-unavailable")
    elif services.store.news.horizon_age() > HORIZON_SECONDS:
        worrying.append("watch-delayed")
    status = "unavailable" if hindered else "degraded" if worrying else "ok"
    return json_answer({"status": status, "reasons": hindered + worrying}, status=503 if hindered else 200)


@router.get("/metrics", response_class=PlainTextResponse, openapi_extra=HALF_OPEN, summary="What is counted")
async def metrics(call: Asked) -> Answer:
    """For Prometheus, with the token of an admin or a service account; without one if `CONFIDE_METRICS=open`."""
    if not call.services.has_open_metrics:
        by = await call.principal()
        if not (by.is_admin or by.is_service_account):
            raise NotAllowed
    return Answer(call.services.metrics.page(), content_type=TEXT)


async def _answers(store: Store) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await store.ping()
    except (DatabaseUnavailable, Busy, TimeoutError):
        return False
    return True
