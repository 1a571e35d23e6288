"""`/integration-types`: kinds of external systems with their schemas, and which configs break them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query

from confide import names, preconditions
from confide.configs import model as configs
from confide.configs.routes import cursor, switch
from confide.integration_types import model as types
from confide.integration_types.conformance import ConformanceReport
from confide.integration_types.model import IntegrationType, Mode, TypeDraft, TypeVersion
from confide.integration_types.shapes import ConformityShape, TypeList, TypePut, TypeSaved, TypeShape
from confide.web.request import Call
from confide.web.response import Answer, json_answer
from confide.web.router import Asked, StrictRoute
from confide.web.sse import EventStream, event
from confide.web.timestamps import written

router = APIRouter(route_class=StrictRoute, tags=["integration types"])

After = Annotated[str | None, Query(description="The `next` of the page before.")]


@router.get("/integration-types", response_model=TypeList, summary="List integration types")
async def list_types(call: Asked) -> Answer:
    """The registered types that a grant of the caller covers, without their schemas."""
    found = await call.services.types.list(by=await call.principal())
    return json_answer({"types": [_line(type_) for type_ in found]})


@router.get("/integration-types/{name}", response_model=TypeShape, summary="Read an integration type")
async def read(call: Asked, name: str) -> Answer:
    by = await call.principal()
    found = await call.services.types.read(names.name(name), by=by)
    return json_answer({**_line(found), "schema": found.schema}, headers=((b"etag", b'"%d"' % found.version),))


@router.put("/integration-types/{name}", response_model=TypeSaved | ConformityShape, summary="Register a type")
async def put(
    call: Asked,
    name: str,
    body: TypePut,
    dry_run: Annotated[str | None, Query(description="`true`: say which configs it would break.")] = None,
    after: After = None,
) -> Answer | EventStream:
    """Put a schema in force, or only how many versions are kept. Admins only.

    A dry run stores nothing and answers as `…/conformance` does.
    """
    by = await call.principal()
    kept, note = types.keep(body.keep), configs.note(body.note)
    draft = TypeDraft(names.name(name), body.json_schema, Mode(body.mode), kept, note)
    condition = preconditions.condition(call.listed(b"if-match"), call.listed(b"if-none-match"))
    if switch({} if dry_run is None else {"dry_run": dry_run}, "dry_run"):
        type_ = await call.services.conformance.of(draft, by=by)
        await call.services.types.require_condition(draft.name, condition=condition)
        return await _checked(call, draft.name, type_, after)
    outcome, version = await call.services.types.put(draft, by=by, condition=condition)
    document = {"message": f"Integration type '{draft.name}' is {outcome}", "name": draft.name, "version": version}
    return json_answer(document, headers=((b"etag", b'"%d"' % version),))


@router.delete("/integration-types/{name}", response_model=TypeSaved, summary="Remove an integration type")
async def remove(call: Asked, name: str) -> Answer:
    """Its configs stay; they have no schema then. Admins only."""
    by = await call.principal()
    condition = preconditions.condition(call.listed(b"if-match"), call.listed(b"if-none-match"))
    version = await call.services.types.remove(names.name(name), by=by, condition=condition)
    return json_answer({"message": f"Integration type '{name}' is removed", "name": name, "version": version})


@router.get("/integration-types/{name}/conformance", response_model=ConformityShape, summary="Which configs break it")
async def conformance(call: Asked, name: str, after: After = None) -> Answer | EventStream:
    """Check the configs of a type against its schema, as many as can be in a second; `next` goes on. Admins only.

    With `Accept: text/event-stream` all of them: events `progress`, then one `result`.
    """
    by = await call.principal()
    known = names.name(name)
    return await _checked(call, known, await call.services.conformance.of(known, by=by), after)


async def _checked(call: Call, name: str, type_: IntegrationType, after: str | None) -> Answer | EventStream:
    if call.accepts_events():
        return EventStream(_events(call, name, type_))
    found = await call.services.conformance.page(name, type_, after=cursor(after))
    return json_answer(_shown(found))


async def _events(call: Call, name: str, type_: IntegrationType) -> AsyncIterator[bytes]:
    call.take_time()
    found = ConformanceReport()
    async for found in call.services.conformance.all(name, type_):
        if found.after is not None:
            yield event("progress", {"checked": found.checked, "broken": found.broken})
    yield event("result", _shown(found))


def _line(found: TypeVersion) -> dict[str, Any]:
    return {
        "name": found.name,
        "version": found.version,
        "mode": found.mode,
        "keep": found.keep,
        "saved_at": written(found.saved_at),
        "note": found.note,
    }


def _shown(found: ConformanceReport) -> dict[str, Any]:
    return {
        "checked": found.checked,
        "broken": found.broken,
        "configs": [
            {
                **one.key._asdict(),
                "version": one.version,
                "errors": [violation.as_json() for violation in one.violations],
            }
            for one in found.configs
        ],
        "next": None if found.after is None else ":".join(found.after),
    }
