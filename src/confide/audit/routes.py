"""HTTP routes of the audit log."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from confide.audit import chain
from confide.audit.model import AuditFilter, ListedEntry
from confide.changes.model import Position
from confide.identity.errors import InvalidLogin
from confide.identity.model import parse_login, parse_scope
from confide.strict_json import Json
from confide.web.errors import MalformedParameter
from confide.web.paging import cut_page
from confide.web.parameters import (
    LIMIT,
    NUMBER_CURSOR,
    TENANT_PATTERN,
    TYPE_PATTERN,
    declare_time,
    format_time,
    parse_cursor_number,
)
from confide.web.request import Request
from confide.web.response import Reply, Response, build_json_response
from confide.web.route import ADMIN, MediaType, Parameter, Returns, Route
from confide.web.sse import EVENT_STREAM, EventStream, format_event

if TYPE_CHECKING:
    from confide.audit.verification import AuditLog, Verification

JSON_LINES = "application/jsonl"
_ACTION = re.compile(r"[a-z]+(?: [a-z]+){0,3}")


class AuditEntryShape(BaseModel):
    """One audit entry."""

    number: int = Field(description="The number of the entry in the hash chain.")
    at: str
    action: str = Field(examples=["save"])
    outcome: str = Field(examples=["updated"])
    actor: str | None = Field(description="The login of the user. Null if the user was removed.")
    actor_id: int | None
    token_id: int | None
    address: str | None
    request_id: str | None
    tenant: str | None
    integration_type: str | None
    version: int | None
    subject: str | None
    position: str | None = Field(description="The position of the change that the entry belongs to.")


class AuditList(BaseModel):
    """One page of audit entries."""

    entries: list[AuditEntryShape]
    next: str | None = Field(description="Pass it as `after` to get the next page. Null on the last page.")


class CheckpointShape(BaseModel):
    """A signed state of the hash chain."""

    checkpoint: int = Field(description="The number of entries that it covers.")
    link: str
    at: int = Field(description="Microseconds since 1970.")
    public_key: str
    signature: str = Field(description="Ed25519 (RFC 8032), hexadecimal.")


class CheckpointList(BaseModel):
    """One page of checkpoints."""

    public_key: str
    checkpoints: list[CheckpointShape]
    next: str | None


class ChainBreakShape(BaseModel, title="BadShape"):
    """The first invalid entry."""

    number: int
    why: str


class LostShape(BaseModel):
    """A stretch of entries that were signed, of which some were lost in a failover. Confirm that it happened."""

    first: int
    last: int
    signed_at: str = Field(description="When the last lost checkpoint was signed.")
    noticed_at: str = Field(description="When the loss was noticed and a new epoch began.")


class ProofShape(BaseModel):
    """The result of verifying the hash chain."""

    checked: int
    ok: bool
    first_bad: ChainBreakShape | None
    lost: list[LostShape] = Field(description="Stretches that a recorded loss of commits explains. Then `ok` is false.")
    removed: int = Field(description="Checked entries that the retention removed. A signed removal stands for them.")
    unlinked: int = Field(description="Entries older than a minute that are not in the chain: added outside Confide.")
    findings: list[str] = Field(
        description="Changes of the store without Confide, at the end of the chain: altered rows, versions without an"
        " entry, removed versions, and objects that are not part of the schema. At most 100 of each kind."
    )
    next: str | None


class AuditRoutes:
    """Handlers of the audit log."""

    def __init__(self, audit_log: AuditLog, *, format_position: Callable[[Position], str]) -> None:
        self._audit_log = audit_log
        self._format_position = format_position

    async def list_entries(self, request: Request) -> Response:
        limit, before = LIMIT.read(request), _BEFORE.read(request)
        tenant, integration_type = TENANT_PATTERN.read(request), TYPE_PATTERN.read(request)
        pattern = None
        if tenant is not None or integration_type is not None:
            pattern = parse_scope(tenant or "*", integration_type or "*")
        selection = AuditFilter(pattern, None, _ACTION_NAME.read(request), _FROM.read(request), _TO.read(request))
        found = await self._audit_log.list_entries(
            selection, login=_ACTOR.read(request), principal=request.principal, before=before, limit=limit + 1
        )
        page = cut_page(found, limit)
        following = None if page.last_item is None else str(page.last_item.number)
        entries = [self._build_entry_json(entry) for entry in page.items]
        return build_json_response({"entries": entries, "next": following})

    async def export(self, request: Request) -> Response:
        after, limit = NUMBER_CURSOR.read(request), LIMIT.read(request)
        found = await self._audit_log.export_entries(principal=request.principal, after=after, limit=limit)
        lines = b"".join(
            (chain.format_removal(part) if isinstance(part, chain.Removal) else chain.format_line(part)) + b"\n"
            for part in found
        )
        return Response(lines, content_type=JSON_LINES.encode())

    async def list_checkpoints(self, request: Request) -> Response:
        after, limit = NUMBER_CURSOR.read(request), LIMIT.read(request)
        found = await self._audit_log.list_checkpoints(principal=request.principal, after=after, limit=limit + 1)
        page = cut_page(found, limit)
        following = None if page.last_item is None else str(page.last_item.number)
        key = self._audit_log.public_key.hex()
        checkpoints = [chain.build_checkpoint_json(checkpoint) for checkpoint in page.items]
        return build_json_response({"public_key": key, "checkpoints": checkpoints, "next": following})

    async def verify(self, request: Request) -> Reply:
        if request.can_receive_events():
            await self._audit_log.require_audit_reader(request.principal)
            return EventStream(request, self._verify_all(request))
        after = NUMBER_CURSOR.read(request)
        return build_json_response(
            _build_verification_json(await self._audit_log.verify(principal=request.principal, after=after))
        )

    async def _verify_all(self, request: Request) -> AsyncIterator[bytes]:
        request.begin_stream()
        async for verification in self._audit_log.verify_all():
            event = "progress" if verification.after is not None else "result"
            yield format_event(event, _build_verification_json(verification))

    def _build_entry_json(self, listed: ListedEntry) -> Json:
        entry = listed.entry
        return {
            "number": listed.number,
            "at": format_time(entry.at),
            "action": entry.action,
            "outcome": entry.outcome,
            "actor": listed.login,
            "actor_id": entry.actor,
            "token_id": entry.token_id,
            "address": entry.address,
            "request_id": entry.request_id,
            "tenant": entry.key.tenant if entry.key else None,
            "integration_type": entry.key.integration_type if entry.key else None,
            "version": entry.version,
            "subject": entry.subject,
            "position": None if listed.position is None else self._format_position(listed.position),
        }


def _build_verification_json(verification: Verification) -> Json:
    bad = verification.bad
    return {
        "checked": verification.checked,
        "ok": verification.is_ok,
        "first_bad": None if bad is None else {"number": bad.number, "why": bad.reason},
        "lost": [
            {
                "first": stretch.first,
                "last": stretch.last,
                "signed_at": format_time(stretch.signed_at),
                "noticed_at": format_time(stretch.noticed_at),
            }
            for stretch in verification.lost
        ],
        "removed": verification.removed,
        "unlinked": verification.unchained,
        "findings": list(verification.findings),
        "next": None if verification.after is None else str(verification.after),
    }


def _parse_action(value: str) -> str | None:
    if not _ACTION.fullmatch(value):
        raise MalformedParameter("Write the parameter action as one to four words in lower case, such as save.")
    return value


def _parse_actor(value: str) -> str | None:
    try:
        return parse_login(value)
    except InvalidLogin:
        raise MalformedParameter("The parameter actor must be a login.") from None


_ACTOR = Parameter("actor", "A login.", _parse_actor, None)
_ACTION_NAME = Parameter("action", "An exact action, such as `save`, `login` or `reveal`.", _parse_action, None)
_FROM = declare_time("from", "RFC 3339 with a zone, inclusive.")
_TO = declare_time("to", "RFC 3339 with a zone, exclusive.")
_BEFORE: Parameter[int | None] = Parameter("after", "The `next` value of the previous page.", parse_cursor_number, None)
_TAG = "audit"

ROUTES: tuple[Route[AuditRoutes], ...] = (
    Route(
        "GET",
        "/audit",
        AuditRoutes.list_entries,
        access=ADMIN,
        operation_id="page_audit_get",
        tag=_TAG,
        summary="List audit entries",
        description="List entries, the newest first. An entry appears within a second. Entries never hold a value.",
        query=(TENANT_PATTERN, TYPE_PATTERN, _ACTOR, _ACTION_NAME, _FROM, _TO, _BEFORE, LIMIT),
        returns=Returns((AuditList,)),
    ),
    Route(
        "GET",
        "/audit/export",
        AuditRoutes.export,
        access=ADMIN,
        operation_id="export_audit_export_get",
        tag=_TAG,
        summary="Export chained audit entries",
        description="Export entries as JSON lines, the oldest first, each with its link and MAC. A line with `removed`"
        " stands for entries that the retention removed. The response is"
        " empty at the end of the chain.",
        query=(NUMBER_CURSOR, LIMIT),
        returns=Returns(media_types=(MediaType(JSON_LINES),)),
    ),
    Route(
        "GET",
        "/audit/checkpoints",
        AuditRoutes.list_checkpoints,
        access=ADMIN,
        operation_id="checkpoints_audit_checkpoints_get",
        tag=_TAG,
        summary="List signed checkpoints of the chain",
        query=(NUMBER_CURSOR, LIMIT),
        returns=Returns((CheckpointList,)),
    ),
    Route(
        "GET",
        "/audit/verify",
        AuditRoutes.verify,
        access=ADMIN,
        operation_id="verify_audit_verify_get",
        tag=_TAG,
        summary="Verify the audit chain",
        description="Check links, MACs and checkpoints of as many entries as one second allows; `next`"
        " continues. At the end, compare the store with the audit log.\n\nWith `Accept: text/event-stream`, check"
        " all entries: `progress` events, then one `result` event.",
        query=(NUMBER_CURSOR,),
        returns=Returns((ProofShape,), media_types=(MediaType(EVENT_STREAM),)),
    ),
)
