"""`/audit`: who did what, and proof that nothing of it was altered."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import PlainTextResponse

from confide.audit import chain
from confide.audit.model import AuditFilter, ListedEntry
from confide.audit.shapes import AuditList, CheckpointList, ProofShape
from confide.audit.verification import Proof
from confide.configs.routes import limit_of
from confide.errors import InvalidCursor
from confide.identity import logins, model
from confide.identity.errors import InvalidLogin
from confide.web import timestamps
from confide.web.errors import MalformedParameter
from confide.web.request import Call
from confide.web.response import Answer, json_answer
from confide.web.router import Asked, StrictRoute, number
from confide.web.sse import EventStream, event


class JsonLinesResponse(PlainTextResponse):
    """For the document: one JSON object a line."""

    media_type = "application/jsonl"


router = APIRouter(route_class=StrictRoute, tags=["audit"])
LINES = b"application/jsonl"
_ACTION = re.compile(r"[a-z]+(?: [a-z]+){0,3}")

After = Annotated[str | None, Query(description="A number; the entries after it.")]
Pattern = Annotated[str | None, Query(description="A name, `prefix*` or `*`.")]
Limit = Annotated[str | None, Query(description="1 to 1,000; 100 if left out.")]


@router.get("/audit", response_model=AuditList, summary="Who did what")
async def page(
    call: Asked,
    *,
    tenant: Pattern = None,
    integration_type: Pattern = None,
    actor: Annotated[str | None, Query(description="A login.")] = None,
    action: Annotated[str | None, Query(description="An exact action: `save`, `login`, `reveal` …")] = None,
    since: Annotated[str | None, Query(alias="from", description="RFC 3339, with the zone.")] = None,
    until: Annotated[str | None, Query(alias="to", description="RFC 3339, exclusive.")] = None,
    after: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
    limit: Limit = None,
) -> Answer:
    """Entries, the newest first, within a second of what they tell; never a value. Admins only."""
    by = await call.principal()
    most, before = limit_of(limit), None if after is None else _number(after)
    scope = None
    if tenant is not None or integration_type is not None:
        scope = model.scope(tenant or "*", integration_type or "*")
    bounds = timestamps.read("from", since), timestamps.read("to", until)
    if action is not None and not _ACTION.fullmatch(action):
        raise MalformedParameter("The parameter action is a word or two in lower case, such as save.")
    try:
        who = None if actor is None else logins.login(actor)
    except InvalidLogin:
        raise MalformedParameter("The parameter actor is a login.") from None
    wanted = AuditFilter(scope, None, action, *bounds)
    lines = await call.services.audit.page(wanted, login=who, by=by, before=before, limit=most + 1)
    shown = lines[:most]
    more = str(shown[-1].number) if len(lines) > most else None
    return json_answer({"entries": [_line(call, line) for line in shown], "next": more})


@router.get("/audit/export", response_class=JsonLinesResponse, summary="Entries as they are chained")
async def export(call: Asked, after: After = None, limit: Limit = None) -> Answer:
    """JSON lines of entries, the oldest first, each with its link and MAC; none at the end. Admins only."""
    by = await call.principal()
    found = await call.services.audit.exported(by=by, after=_number(after or "0"), limit=limit_of(limit))
    return Answer(b"".join(chain.write_line(one) + b"\n" for one in found), content_type=LINES)


@router.get("/audit/checkpoints", response_model=CheckpointList, summary="Signed states of the chain")
async def checkpoints(call: Asked, after: After = None, limit: Limit = None) -> Answer:
    """What was signed so far, and the key that it can be checked with; the first page signs. Admins only."""
    by = await call.principal()
    most = limit_of(limit)
    found = await call.services.audit.checkpoints(by=by, after=_number(after or "0"), limit=most + 1)
    shown, key = found[:most], call.services.audit.public_key.hex()
    more = str(shown[-1].number) if len(found) > most else None
    return json_answer({"public_key": key, "checkpoints": [chain.checkpoint_json(one) for one in shown], "next": more})


@router.get("/audit/verify", response_model=ProofShape, summary="Prove that nothing was altered")
async def verify(call: Asked, after: After = None) -> Answer | EventStream:
    """Check links, MACs and checkpoints of as many entries as can be in a second; `next` goes on. Admins only.

    With `Accept: text/event-stream` all of them: events `progress`, then one `result`.
    """
    by = await call.principal()
    if call.accepts_events():
        await call.services.audit.require_audit_reader(by)
        return EventStream(_events(call))
    return json_answer(_proof(await call.services.audit.verify(by=by, after=_number(after or "0"))))


async def _events(call: Call) -> AsyncIterator[bytes]:
    call.take_time()
    async for found in call.services.audit.verified():
        yield event("progress" if found.after is not None else "result", _proof(found))


def _proof(found: Proof) -> dict[str, Any]:
    return {
        "checked": found.checked,
        "ok": found.bad is None and not found.unlinked,
        "first_bad": None if found.bad is None else {"number": found.bad.number, "why": found.bad.why},
        "unlinked": found.unlinked,
        "next": None if found.after is None else str(found.after),
    }


def _line(call: Call, line: ListedEntry) -> dict[str, Any]:
    entry = line.entry
    return {
        "number": line.number,
        "at": timestamps.written(entry.at),
        "action": entry.action,
        "outcome": entry.outcome,
        "actor": line.login,
        "actor_id": entry.actor,
        "token_id": entry.token_id,
        "address": entry.address,
        "request_id": entry.request_id,
        "tenant": entry.key.tenant if entry.key else None,
        "integration_type": entry.key.integration_type if entry.key else None,
        "version": entry.version,
        "subject": entry.subject,
        "position": None if line.position is None else call.services.position(line.position),
    }


def _number(text: str) -> int:
    found = 0 if text == "0" else number(text)
    if found is None:
        raise InvalidCursor
    return found
