"""`/config/versions`, `/config/diff` and `/config/rollback`: what a config was, and bringing it back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from confide import names, preconditions
from confide.configs import model
from confide.configs import routes as config_routes
from confide.configs.history import NOTHING
from confide.configs.model import Rollback, VersionSummary
from confide.configs.shapes import ConfigDiff, ConfigSaved, DryRunShape, RollbackShape, VersionList, VersionShape
from confide.errors import InvalidCursor, NotFound
from confide.web.errors import MalformedParameter
from confide.web.response import Answer, json_answer
from confide.web.router import Asked, StrictRoute, number
from confide.web.timestamps import written

router = APIRouter(route_class=StrictRoute, tags=["history"])

Tenant = Annotated[str, Query(description="An exact name.", examples=["acme"])]
Type = Annotated[str, Query(description="An exact name.", examples=["flight-information-system"])]


@router.get("/config/versions", response_model=VersionList, summary="List versions")
async def versions(
    call: Asked,
    tenant: Tenant,
    integration_type: Type,
    after: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
    limit: Annotated[str | None, Query(description="1 to 1,000; 100 if left out.")] = None,
) -> Answer:
    """Every version of a config, the newest first, tombstones among them; never bodies."""
    by = await call.principal()
    key = names.key(tenant, integration_type)
    most = config_routes.limit_of(limit)
    before = None if after is None else number(after)
    if after is not None and before is None:
        raise InvalidCursor
    lines = await call.services.history.versions(key, by=by, before=before, limit=most + 1)
    shown = lines[:most]
    more = str(shown[-1].version) if len(lines) > most else None
    return json_answer({"versions": [_line(call, line) for line in shown], "next": more})


@router.get("/config/versions/{version}", response_model=VersionShape, summary="Read a version")
async def version(call: Asked, version: str, tenant: Tenant, integration_type: Type) -> Answer:
    """One version with its configuration. For those who may read secrets this is a reveal, and audited."""
    by = await call.principal()
    key = names.key(tenant, integration_type)
    wanted = number(version)
    if wanted is None:
        raise NotFound
    found = await call.services.history.version(key, wanted, by=by)
    return json_answer({**key._asdict(), **_line(call, found.line), "configuration": found.configuration})


@router.get("/config/diff", response_model=ConfigDiff, summary="Compare two versions")
async def diff(
    call: Asked,
    tenant: Tenant,
    integration_type: Type,
    since: Annotated[str, Query(alias="from", description="A version; 0 is before the first one.")],
    until: Annotated[str, Query(alias="to", description="A version.")],
) -> Answer:
    """What changed, by JSON Pointer: objects are walked, everything else is one value. Viewers see masks."""
    by = await call.principal()
    key = names.key(tenant, integration_type)
    bounds = {"since": _bound("from", since), "until": _bound("to", until)}
    return json_answer(await call.services.history.diff(key, by=by, **bounds))


@router.post("/config/rollback", response_model=ConfigSaved | DryRunShape, summary="Bring a version back")
async def roll_back(
    call: Asked,
    body: RollbackShape,
    dry_run: Annotated[str | None, Query(description="`true`: say what it would come to and store nothing.")] = None,
) -> Answer:
    """Append what an older version held as a new one; a retired config comes back that way. Editors only."""
    by = await call.principal()
    key = names.key(body.tenant, body.integration_type)
    condition = preconditions.condition(call.listed(b"if-match"), call.listed(b"if-none-match"))
    rollback = Rollback(key, body.version, model.note(body.note))
    if config_routes.switch({} if dry_run is None else {"dry_run": dry_run}, "dry_run"):
        return config_routes.tried(await call.services.configs.try_out(rollback, by=by, condition=condition))
    retry = config_routes.retry_of(call, content=await call.body())
    saved = await call.services.configs.roll_back(rollback, by=by, condition=condition, retry=retry)
    return config_routes.saved_answer(saved)


def _line(call: Asked, line: VersionSummary) -> dict[str, Any]:
    return {
        "version": line.version,
        "position": call.services.position(line.position),
        "kind": line.kind,
        "saved_by": line.saved_by,
        "saved_at": written(line.saved_at),
        "note": line.note,
        "pruned": line.is_pruned,
    }


def _bound(name: str, text: str) -> int:
    found = NOTHING if text == str(NOTHING) else number(text)
    if found is None:
        raise MalformedParameter(f"The parameter {name} is the number of a version.")
    return found
