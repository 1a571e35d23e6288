"""HTTP routes of reading the current config and its access statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from confide import preconditions
from confide.identity.model import SecretsMode
from confide.names import ConfigKey
from confide.reads.audited import OpenedMember, ReadConditions
from confide.reads.plain_read import parse_min_version
from confide.reads.response import build_response
from confide.strict_json import format_pointer, parse_pointer
from confide.web.errors import MalformedParameter
from confide.web.parameters import INTEGRATION_TYPE, SECRETS, TENANT, format_time, read_key
from confide.web.request import Request
from confide.web.response import Reply, Response, build_json_response
from confide.web.route import (
    EDITOR,
    VIEWER,
    Header,
    OtherResponse,
    Parameter,
    ResponseHeader,
    Returns,
    Route,
    declare_switch,
)

if TYPE_CHECKING:
    from confide.reads.audited import AuditedReader
    from confide.reads.reader import ConfigReader
    from confide.reads.statistics import AccessStatistics

EXAMPLE = {
    "username": "acme_user",
    "password": "acme12345",
    "wsdl_urls": {
        "session_url": "https://session.manager.svc",
        "booking_url": "https://booking.manager.svc",
    },
}


class ConfigShape(BaseModel):
    """A current config."""

    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["flight-information-system"])
    configuration: dict[str, Any] = Field(examples=[EXAMPLE])


class MemberShape(BaseModel):
    """One member of a config."""

    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["flight-information-system"])
    version: int
    pointer: str = Field(examples=["/password"])
    value: Any


class UsageShape(BaseModel):
    """Reads of one config with one token."""

    token_id: int
    login: str | None
    label: str | None
    last_read_at: str
    reads: int


class UsageList(BaseModel):
    """Tokens that read a config."""

    usage: list[UsageShape] = Field(description="The latest reader first, at most 1,000.")


class ReadRoutes:
    """Handlers of reads. The fast path answers plain reads before they reach the router."""

    def __init__(self, reader: ConfigReader, audited_reader: AuditedReader, statistics: AccessStatistics) -> None:
        self._reader = reader
        self._audited_reader = audited_reader
        self._statistics = statistics

    async def authenticate(self, request: Request) -> None:
        """Authenticate, with a cached token if the database is unavailable."""
        request.principal, request.is_database_unavailable = await self._reader.authenticate_token(
            request.require_token()
        )

    async def read(self, request: Request) -> Reply:
        key = read_key(request)
        has_defaults = _DEFAULTS.read(request)
        known_tags = request.find_list_header(b"if-none-match")
        precondition = preconditions.parse_precondition(request.find_list_header(b"if-match"), None)
        if known_tags is not None:
            preconditions.parse_tags(known_tags)
        min_version = parse_min_version(
            request.find_list_header(b"cache-control"), request.find_header(b"config-min-version")
        )
        secrets, path = SECRETS.read(request), _POINTER.read(request)
        conditions = ReadConditions(precondition, min_version, has_defaults)
        if path is not None:
            if secrets is not SecretsMode.OPENED:
                raise MalformedParameter("The parameter pointer is for opened secrets. Add secrets=opened.")
            member = await self._audited_reader.read_member(key, path, conditions, principal=request.principal)
            return await request.run(lambda: build_member_response(key, path, member))
        if secrets is SecretsMode.OPENED:
            result = await self._audited_reader.read(key, conditions, principal=request.principal)
            return build_response(result, known_tags)
        result = await self._reader.read(
            key,
            principal=request.principal,
            min_version=min_version,
            has_defaults=has_defaults,
            secrets=secrets,
            is_database_unavailable=request.is_database_unavailable,
        )
        precondition.require_match(result.response.version, epoch=result.response.epoch)
        return build_response(result, known_tags)

    async def list_usage(self, request: Request) -> Response:
        key = read_key(request)
        summaries = await self._statistics.list_readers(key, principal=request.principal)
        usage = [{**summary._asdict(), "last_read_at": format_time(summary.last_read_at)} for summary in summaries]
        return build_json_response({"usage": usage})


def build_member_response(key: ConfigKey, path: tuple[str, ...], member: OpenedMember) -> Response:
    document = {**key._asdict(), "version": member.version, "pointer": format_pointer(path), "value": member.value}
    return build_json_response(document, headers=((b"config-version", b"%d" % member.version),))


def _parse_pointer(value: str) -> tuple[str, ...]:
    try:
        return parse_pointer(value)
    except ValueError:
        raise MalformedParameter(
            "The parameter pointer must be a JSON Pointer (RFC 6901), such as /password."
        ) from None


_POINTER: Parameter[tuple[str, ...] | None] = Parameter(
    "pointer", "JSON Pointer (RFC 6901): only the value of this member. Needs `secrets=opened`.", _parse_pointer, None
)
_DEFAULTS = declare_switch(
    "defaults",
    "`off`: the stored configuration, without the defaults of its type.",
    true_word="on",
    false_word="off",
    default=True,
)
_TAG = "configs"

ROUTES: tuple[Route[ReadRoutes], ...] = (
    Route(
        "GET",
        "/config",
        ReadRoutes.read,
        access=VIEWER,
        authenticate=ReadRoutes.authenticate,
        operation_id="read_a_config",
        tag=_TAG,
        summary="Read a config",
        description="The current version. Viewers see secrets as `********`. A read with `secrets=opened` is an audited"
        " secret access.",
        query=(TENANT, INTEGRATION_TYPE, _DEFAULTS, SECRETS, _POINTER),
        headers=(
            Header("If-None-Match", "A known tag. The response is 304 if it is still current."),
            Header("If-Match", "Only if this is the current tag of the config. Otherwise 412."),
            Header("Cache-Control", "`no-cache`, `no-store` or `max-age=0`: read the database."),
            Header(
                "Config-Min-Version", "A version number. The response has this version or a newer one, if it exists."
            ),
        ),
        returns=Returns(
            (ConfigShape, MemberShape),
            headers=(
                ResponseHeader("ETag", "string"),
                ResponseHeader("Config-Version", "integer"),
                ResponseHeader("Config-Freshness", "string"),
            ),
        ),
        other_responses=(OtherResponse(304, "The known tag is still current."),),
    ),
    Route(
        "GET",
        "/config/usage",
        ReadRoutes.list_usage,
        access=EDITOR,
        operation_id="who_reads_a_config",
        tag=_TAG,
        summary="List readers of a config",
        description="Each token that read the config, with the last read and the number of reads. Written every ten"
        " seconds.",
        query=(TENANT, INTEGRATION_TYPE),
        returns=Returns((UsageList,)),
    ),
)
