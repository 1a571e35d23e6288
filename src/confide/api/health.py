"""`/health`: whether the process lives, and whether it can answer."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from confide.api.answers import Answer, json_answer
from confide.api.models import Health
from confide.api.routes import OPEN, Asked, StrictRoute
from confide.domain.errors import Busy
from confide.ports import Unreachable

ANSWER_SECONDS = 1.0

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
    """200 while this process can answer, `degraded` with reasons if something is not as it should be; else 503."""
    services = call.services
    hindered = ["draining"] if services.is_draining else []
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await services.store.ping()
    except (Unreachable, Busy, TimeoutError):
        hindered.append("store-unavailable")
    worrying = ["unsafe-durability"] if services.is_unsafe else []
    worrying += ["integrity-error"] if services.opener.broken else []
    status = "unavailable" if hindered else "degraded" if worrying else "ok"
    return json_answer({"status": status, "reasons": hindered + worrying}, status=503 if hindered else 200)
