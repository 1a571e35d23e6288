"""HTTP routes of reading the current config and its access statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from confide import preconditions
from confide.reads.plain_read import parse_min_version
from confide.reads.response import build_response
from confide.web.parameters import INTEGRATION_TYPE, TENANT, format_time, read_key
from confide.web.request import Request
from confide.web.response import Reply, Response, build_json_response
from confide.web.route import EDITOR, VIEWER, Header, OtherResponse, ResponseHeader, Returns, Route, declare_switch

if TYPE_CHECKING:
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

    def __init__(self, reader: ConfigReader, statistics: AccessStatistics) -> None:
        self._reader = reader
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
        result = await self._reader.read(
            key,
            principal=request.principal,
            min_version=min_version,
            has_defaults=has_defaults,
            is_database_unavailable=request.is_database_unavailable,
        )
        precondition.require_match(result.response.version, epoch=result.response.epoch)
        return build_response(result, known_tags)

    async def list_usage(self, request: Request) -> Response:
        key = read_key(request)
        summaries = await self._statistics.list_readers(key, principal=request.principal)
        usage = [{**summary._asdict(), "last_read_at": format_time(summary.last_read_at)} for summary in summaries]
        return build_json_response({"usage": usage})


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
        description="The current version. Viewers see secrets as `********`.",
        query=(TENANT, INTEGRATION_TYPE, _DEFAULTS),
        headers=(
            Header("If-None-Match", "A known tag. The response is 304 if it is still current."),
            Header("If-Match", "Only if this is the current tag of the config. Otherwise 412."),
            Header("Cache-Control", "`no-cache`, `no-store` or `max-age=0`: read the database."),
            Header(
                "Config-Min-Version", "A version number. The response has this version or a newer one, if it exists."
            ),
        ),
        returns=Returns(
            (ConfigShape,),
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
