"""The one way in which the framework's routes read a request: ours, not the framework's."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from confide.context import caller
from confide.errors import InvalidBody, UnknownMember, Violation
from confide.strict_json import Json, pointer
from confide.web.problems import answer_for
from confide.web.request import Call, Disconnected
from confide.web.response import Answer
from confide.web.sse import EventStream

# Marks a route that needs no token, for the code and for the OpenAPI document alike.
OPEN: dict[str, Any] = {"security": []}
# Marks one that takes a token but answers some without: the first user.
HALF_OPEN: dict[str, Any] = {"security": [{}, {"token": []}]}

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def _handed_over() -> None:
    """Nothing: the route class puts the call in its place."""


Asked = Annotated[Call, Depends(_handed_over)]


class StrictRoute(APIRoute):
    """Token, content type, our reader, parameters, then shapes without values, in that order.

    FastAPI itself parses before dependencies run, keeps the last of duplicates and echoes what was sent.
    """

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        async def handle(request: Request) -> Response:
            call: Call = request.scope["confide.call"]
            try:
                arguments = await self._arguments(call, request.path_params)
                answer: Answer | EventStream = await self.endpoint(call, **arguments)
            except Disconnected:
                raise
            except Exception as error:  # noqa: BLE001 - here, for the framework would answer before the door can
                answer = answer_for(error, request_id=caller.get().request_id)
            return answer.as_response()

        return handle

    async def _arguments(self, call: Call, in_path: Mapping[str, str]) -> dict[str, Any]:
        if self.openapi_extra not in (OPEN, HALF_OPEN):
            await call.principal()
        arguments: dict[str, Any] = dict(in_path)
        body = self.dependant.body_params
        if body:
            arguments[body[0].name] = _shaped(await call.document(), body[0].field_info.annotation)
        else:
            call.require_no_body()
        asked = self.dependant.query_params
        needed = [field.alias for field in asked if field.field_info.is_required()]
        names = {field.alias: field.name for field in asked}
        given = call.parameters(needed=needed, known=names)
        return arguments | {names[alias]: value for alias, value in given.items()}


def number(text: str) -> int | None:
    """A positive number as we write it ourselves: digits only, no sign, no leading zero."""
    return int(text) if _NUMBER.fullmatch(text) else None


def _shaped(document: Json, shape: Any) -> BaseModel:
    try:
        model: BaseModel = shape.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        violations = tuple(Violation(pointer(one["loc"]), one["type"].replace("_", "-"), one["msg"]) for one in found)
        if any(one["type"] == "extra_forbidden" for one in found):
            raise UnknownMember(violations=violations) from None
        raise InvalidBody(violations=violations) from None
    return model
