"""HTTP routes of integration types: registering them, and listing configs that violate a schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from confide import names, preconditions
from confide.configs.model import parse_note
from confide.epoch import CurrentEpoch, Epoch
from confide.errors import Violation
from confide.identity.model import Role
from confide.integration_types.model import Mode, TypeDraft, TypeVersion, parse_keep
from confide.strict_json import Json
from confide.web.parameters import KEY_CURSOR, PRECONDITION, format_key_cursor, format_time, read_precondition
from confide.web.request import Request
from confide.web.response import Headers, Reply, Response, build_json_response
from confide.web.route import (
    ADMIN,
    Body,
    MediaType,
    ResponseHeader,
    Returns,
    Route,
    RouteAccess,
    Target,
    declare_switch,
)
from confide.web.shapes import ViolationShape
from confide.web.sse import EVENT_STREAM, EventStream, format_event

if TYPE_CHECKING:
    from confide.integration_types.conformance import CheckedType, ConformanceCheck, ConformanceReport
    from confide.integration_types.manage import IntegrationTypes

_SCHEMA = {
    "type": "object",
    "required": ["username", "password"],
    "properties": {"password": {"type": "string", "writeOnly": True}, "timeout_seconds": {"default": 30}},
}


_WARNINGS = "Problems of the schema that did not prevent its registration. Absent if there are none."


class TypeBody(Body, title="TypePut"):
    """An integration type. `schema` is JSON Schema draft-07, 2019-09 or 2020-12; null means no schema."""

    document_member = "schema"
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema", examples=[_SCHEMA])
    mode: Literal["warn", "enforce"] = Field(default="warn", description="The effect of a violation on a save.")
    keep: int = Field(default=100, description="Versions of each config to keep, 1 to 100,000.")
    note: str | None = Field(default=None, description="A one-line reason.")


class TypeSaved(BaseModel):
    """The result of registering or removing a type."""

    message: str = Field(examples=["Integration type 'flight-information-system' is created"])
    name: str
    version: int
    warnings: list[ViolationShape] | None = Field(default=None, description=_WARNINGS)


class TypeSummaryShape(BaseModel, title="TypeLine"):
    """An integration type without its schema."""

    name: str
    version: int
    mode: Literal["warn", "enforce"]
    keep: int
    saved_at: str
    note: str | None


class TypeShape(TypeSummaryShape, title="TypeShape"):
    """An integration type."""

    json_schema: dict[str, Any] | None = Field(alias="schema", examples=[_SCHEMA])


class TypeList(BaseModel):
    """All integration types that the caller may see."""

    types: list[TypeSummaryShape]


class NonconformingShape(BaseModel, title="BrokenShape"):
    """A config that violates the schema."""

    tenant: str
    integration_type: str
    version: int
    errors: list[ViolationShape]


class MaskChangeShape(BaseModel):
    """A place at which configs have values that are masked now and were not before, or the reverse."""

    pointer: str = Field(description="A JSON Pointer, with `*` for any element of a list.", examples=["/servers/*/pem"])
    configs: int = Field(description="The number of configs with such a value.")


class ConformanceShape(BaseModel, title="ConformityShape"):
    """The configs that violate a schema."""

    checked: int
    broken: int
    configs: list[NonconformingShape] = Field(description="The first 1,000 of them.")
    newly_masked: list[MaskChangeShape] = Field(
        description="Values that viewers no longer see. A draft is compared with the active type, and an active type"
        " with the rules of the previous release."
    )
    newly_visible: list[MaskChangeShape] = Field(description="Values that were masked and that viewers see now.")
    warnings: list[ViolationShape] | None = Field(default=None, description=_WARNINGS)
    next: str | None = Field(description="Pass it as `after` to continue. Null when all configs were checked.")


class TypeRoutes:
    """Handlers of the routes of integration types."""

    def __init__(self, types: IntegrationTypes, conformance: ConformanceCheck, *, epoch: CurrentEpoch) -> None:
        self._epoch = epoch
        self._types = types
        self._conformance = conformance

    async def list_types(self, request: Request) -> Response:
        types = await self._types.list(principal=request.principal)
        return build_json_response({"types": [_build_summary_json(one) for one in types]})

    async def read(self, request: Request) -> Response:
        epoch = self._epoch.value
        type_ = await self._types.read(_read_name(request), principal=request.principal)
        document = {**_build_summary_json(type_), "schema": type_.schema}
        return build_json_response(document, headers=_build_tag_headers(type_.version, epoch))

    async def put(self, request: Request) -> Reply:
        body = request.get_body(TypeBody)
        keep, note = parse_keep(body.keep), parse_note(body.note)
        draft = TypeDraft(_read_name(request), body.json_schema, Mode(body.mode), keep, note)
        precondition = read_precondition(request)
        if _DRY_RUN.read(request):
            type_ = await self._conformance.load_type(draft, principal=request.principal)
            await self._types.require_precondition(draft.name, precondition=precondition)
            return await self._check(request, draft.name, type_)
        saved = await self._types.save(draft, principal=request.principal, precondition=precondition)
        document = {
            "message": f"Integration type '{draft.name}' is {saved.outcome}",
            "name": draft.name,
            "version": saved.version,
            **_build_warnings_json(saved.warnings),
        }
        return build_json_response(document, headers=_build_tag_headers(saved.version, saved.epoch))

    async def remove(self, request: Request) -> Response:
        name = _read_name(request)
        version = await self._types.remove(name, principal=request.principal, precondition=read_precondition(request))
        return build_json_response(
            {"message": f"Integration type '{name}' is removed", "name": name, "version": version}
        )

    async def check_conformance(self, request: Request) -> Reply:
        name = _read_name(request)
        return await self._check(request, name, await self._conformance.load_type(name, principal=request.principal))

    async def _check(self, request: Request, name: str, type_: CheckedType) -> Reply:
        if request.can_receive_events():
            return EventStream(request, self._check_all(request, name, type_))
        report = await self._conformance.check_page(name, type_, after=KEY_CURSOR.read(request))
        return await request.run(lambda: build_json_response(_build_report_json(report, type_.warnings)))

    async def _check_all(self, request: Request, name: str, type_: CheckedType) -> AsyncIterator[bytes]:
        request.begin_stream()
        report: ConformanceReport | None = None
        async for report in self._conformance.check_all(name, type_):
            if report.after is not None:
                yield format_event("progress", {"checked": report.checked, "broken": report.nonconforming})
        if report is not None:
            result = report
            yield await request.run(lambda: format_event("result", _build_report_json(result, type_.warnings)))


def _read_name(request: Request) -> str:
    return names.parse_name(request.path_values["name"])


def _build_tag_headers(version: int, epoch: Epoch) -> Headers:
    return ((b"etag", preconditions.format_tag(version, epoch=epoch).encode()),)


def _build_summary_json(version: TypeVersion) -> Json:
    return {
        "name": version.name,
        "version": version.version,
        "mode": version.mode,
        "keep": version.keep,
        "saved_at": format_time(version.saved_at),
        "note": version.note,
    }


def _build_warnings_json(warnings: tuple[Violation, ...]) -> Json:
    return {"warnings": [violation.to_json() for violation in warnings]} if warnings else {}


def _build_counts_json(counted: Counter[str]) -> list[Json]:
    return [{"pointer": pointer, "configs": counted[pointer]} for pointer in sorted(counted)]


def _build_report_json(report: ConformanceReport, warnings: tuple[Violation, ...]) -> Json:
    return {
        "checked": report.checked,
        "broken": report.nonconforming,
        "configs": [
            {
                **config.key._asdict(),
                "version": config.version,
                "errors": [violation.to_json() for violation in config.violations],
            }
            for config in report.configs
        ],
        "newly_masked": _build_counts_json(report.newly_masked),
        "newly_visible": _build_counts_json(report.newly_visible),
        **_build_warnings_json(warnings),
        "next": format_key_cursor(report.after),
    }


_DRY_RUN = declare_switch("dry_run", "`true`: list the configs that would violate the schema and store nothing.")
_ETAG = (ResponseHeader("ETag", "string"),)
_EVENTS = (MediaType(EVENT_STREAM),)
_TAG = "integration types"

ROUTES: tuple[Route[TypeRoutes], ...] = (
    Route(
        "GET",
        "/integration-types",
        TypeRoutes.list_types,
        access=RouteAccess(Target.VISIBLE),
        operation_id="list_types_integration_types_get",
        tag=_TAG,
        summary="List integration types",
        description="The registered types that a grant of the caller covers, without their schemas.",
        returns=Returns((TypeList,)),
    ),
    Route(
        "GET",
        "/integration-types/{name}",
        TypeRoutes.read,
        access=RouteAccess(Target.INTEGRATION_TYPE, Role.VIEWER),
        operation_id="read_integration_types__name__get",
        tag=_TAG,
        summary="Read an integration type",
        returns=Returns((TypeShape,), headers=_ETAG),
    ),
    Route(
        "PUT",
        "/integration-types/{name}",
        TypeRoutes.put,
        access=ADMIN,
        operation_id="put_integration_types__name__put",
        tag=_TAG,
        summary="Register an integration type",
        description="Activate a schema, or only change how many versions are kept.\n\nA dry run stores nothing and"
        " responds like `GET /integration-types/{name}/conformance`.",
        body=TypeBody,
        query=(_DRY_RUN, KEY_CURSOR),
        headers=PRECONDITION,
        returns=Returns((TypeSaved, ConformanceShape), headers=_ETAG, media_types=_EVENTS),
    ),
    Route(
        "DELETE",
        "/integration-types/{name}",
        TypeRoutes.remove,
        access=ADMIN,
        operation_id="remove_integration_types__name__delete",
        tag=_TAG,
        summary="Remove an integration type",
        description="The configs of the type stay, without a schema.",
        headers=PRECONDITION,
        returns=Returns((TypeSaved,)),
    ),
    Route(
        "GET",
        "/integration-types/{name}/conformance",
        TypeRoutes.check_conformance,
        access=ADMIN,
        operation_id="conformance_integration_types__name__conformance_get",
        tag=_TAG,
        summary="List configs that violate a schema",
        description="Check the configs of a type against its schema, as many as one second allows; `next`"
        " continues.\n\nWith `Accept: text/event-stream`, check all configs: `progress` events, then one `result`"
        " event.",
        query=(KEY_CURSOR,),
        returns=Returns((ConformanceShape,), media_types=_EVENTS),
    ),
)
