"""HTTP routes of reading the current config and its access statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from confide import names, preconditions
from confide.identity.errors import InvalidToken
from confide.identity.model import parse_credential
from confide.reads.request import parse_min_version
from confide.reads.response import build_response
from confide.web.parameters import INTEGRATION_TYPE, TENANT, format_time
from confide.web.request import Request
from confide.web.response import Reply, Response, json_response
from confide.web.route import EDITOR, VIEWER, Header, Returns, Route, choice

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
    """Handlers of reads. The fast path answers plain reads before they get here."""

    def __init__(self, reader: ConfigReader, statistics: AccessStatistics) -> None:
        self._reader = reader
        self._statistics = statistics

    async def authenticate(self, request: Request) -> None:
        """Authenticate with a cached token if the database is unavailable."""
        credential = parse_credential(request.token())
        if credential is None:
            raise InvalidToken
        request.principal, request.is_database_unavailable = await self._reader.who(credential)

    async def read(self, request: Request) -> Reply:
        key = names.parse_key(TENANT.read(request), INTEGRATION_TYPE.read(request))
        is_bare = _WITHOUT_DEFAULTS.read(request)
        known = request.header_list(b"if-none-match")
        precondition = preconditions.parse_precondition(request.header_list(b"if-match"), None)
        if known is not None:
            preconditions.parse_tags(known)
        floor = parse_min_version(request.header_list(b"cache-control"), request.header(b"config-min-version"))
        found = await self._reader.read(
            key, principal=request.principal, floor=floor, is_bare=is_bare, is_away=request.is_database_unavailable
        )
        precondition.require(found.response.version)
        return build_response(found, known)

    async def usage(self, request: Request) -> Response:
        key = names.parse_key(TENANT.read(request), INTEGRATION_TYPE.read(request))
        found = await self._statistics.of(key, principal=request.principal)
        shown = [{**summary._asdict(), "last_read_at": format_time(summary.last_read_at)} for summary in found]
        return json_response({"usage": shown})


_WITHOUT_DEFAULTS = choice(
    "defaults", "`off`: the stored configuration, without the defaults of its type.", on="off", off="on"
)
_TAG = "configs"

ROUTES: tuple[Route[ReadRoutes], ...] = (
    Route(
        "GET",
        "/config",
        ReadRoutes.read,
        access=VIEWER,
        authenticate=ReadRoutes.authenticate,
        tag=_TAG,
        summary="Read a config",
        description="The current version. Viewers see secrets as `********`.",
        query=(TENANT, INTEGRATION_TYPE, _WITHOUT_DEFAULTS),
        headers=(
            Header("If-None-Match", "A known tag. The response is 304 if it is still current."),
            Header("If-Match", "Only if this is the current tag of the config. Otherwise 412."),
        ),
        returns=Returns((ConfigShape,), headers=(("ETag", "string"), ("Config-Version", "integer"))),
        other_responses=((304, "The known tag is still current.", None),),
    ),
    Route(
        "GET",
        "/config/usage",
        ReadRoutes.usage,
        access=EDITOR,
        tag=_TAG,
        summary="List readers of a config",
        description="Each token that read the config, with the last read and the number of reads. Written every ten"
        " seconds.",
        query=(TENANT, INTEGRATION_TYPE),
        returns=Returns((UsageList,)),
    ),
)
