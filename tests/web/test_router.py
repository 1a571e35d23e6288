"""The router finds one route for a path, and rejects everything else in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from confide.errors import NotFound, ServiceError, UnknownMember
from confide.fair_scheduler import FairScheduler
from confide.identity.errors import InvalidToken, NoToken
from confide.identity.model import Principal
from confide.server.api import ROUTES
from confide.web.asgi import Message
from confide.web.errors import (
    BodyNotExpected,
    DuplicateParameter,
    MalformedParameter,
    MethodNotAllowed,
    MissingParameter,
    UnknownParameter,
)
from confide.web.request import Request
from confide.web.response import Response
from confide.web.route import PUBLIC, SELF, Body, Route, declare_required_text, declare_text
from confide.web.router import BoundRoute, Router, bind

PRINCIPAL = Principal(1, "ada", (), 7)


class Note(Body):
    """A body for the tests."""

    words: str


class Notes:
    """Handlers that return their route and its values."""

    async def read(self, request: Request) -> Response:
        return Response(f"{request.route_path} {dict(request.path_values)} {dict(request.query)}".encode())

    async def save(self, request: Request) -> Response:
        return Response(request.get_body(Note).words.encode())


SAMPLE = (
    Route(
        "GET",
        "/notes",
        Notes.read,
        access=PUBLIC,
        operation_id="list_notes",
        summary="List notes",
        tag="notes",
        query=(declare_text("after", "…"),),
    ),
    Route(
        "POST", "/notes", Notes.save, access=SELF, operation_id="add_note", summary="Add a note", tag="notes",
        body=Note,
    ),
    Route(
        "GET", "/notes/latest", Notes.read, access=PUBLIC, operation_id="read_latest_note",
        summary="Read the latest note", tag="notes",
    ),
    Route(
        "GET", "/notes/{number}", Notes.read, access=PUBLIC, operation_id="read_note", summary="Read a note",
        tag="notes",
    ),
    Route(
        "DELETE", "/notes/{number}", Notes.read, access=SELF, operation_id="delete_note", summary="Delete a note",
        tag="notes", query=(declare_required_text("confirm", "…"),),
    ),
)  # fmt: skip


def build_request(
    method: str, path: str, *, query: bytes = b"", body: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = ()
) -> Request:
    content = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))] if body else []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [(b"host", b"localhost"), *content, *headers],
    }
    return Request(scope, receive, scheduler=FairScheduler())


def build_router() -> Router:
    async def authenticate(token: str) -> Principal:
        if token != "good":
            raise InvalidToken
        return PRINCIPAL

    return Router(bind(SAMPLE, Notes()), authenticate=authenticate)


async def dispatch(request: Request) -> str:
    reply = await build_router().dispatch(request)
    assert isinstance(reply, Response)
    return reply.body.decode()


GOOD = ((b"authorization", b"Bearer good"),)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/notes", "/notes {} {}"),
        ("/notes/latest", "/notes/latest {} {}"),
        ("/notes/12", "/notes/{number} {'number': '12'} {}"),
    ],
)
async def test_an_exact_path_comes_before_a_template(path: str, expected: str) -> None:
    assert await dispatch(build_request("GET", path)) == expected


@pytest.mark.parametrize("path", ["/", "/note", "/notes/", "/notes/1/2", "//notes", "/notes//1", "/NOTES"])
async def test_an_unknown_path_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        await dispatch(build_request("GET", path))


async def test_an_escaped_spelling_of_a_path_is_not_found() -> None:
    request = build_request("GET", "/notes")
    request.scope["raw_path"] = b"/n%6ftes"
    with pytest.raises(NotFound):
        await dispatch(request)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"ada%40example.com", "ada@example.com"),
        (b"ada@example.com", "ada@example.com"),
        (b"a+b", "a+b"),
        (b"a%2Bb", "a+b"),
        (b"%61", "a"),
        (b"a%2Fb", "a/b"),
        (b"%252F", "%2F"),
        (b"%C3%A4", "ä"),
        (b"..%2F..", "../.."),
    ],
)
async def test_a_path_value_is_percent_decoded_once(raw: bytes, value: str) -> None:
    request = build_request("GET", "/notes/x")
    request.scope["raw_path"] = b"/notes/" + raw
    assert await dispatch(request) == f"/notes/{{number}} { ({'number': value}) } {{}}"


@pytest.mark.parametrize("raw", [b"%", b"%zz", b"a%4", b"%ff"])
async def test_a_path_value_with_a_bad_escape_is_malformed(raw: bytes) -> None:
    request = build_request("GET", "/notes/x")
    request.scope["raw_path"] = b"/notes/" + raw
    with pytest.raises(MalformedParameter, match="path"):
        await dispatch(request)


async def test_an_unknown_method_lists_the_allowed_ones_and_keeps_the_route_for_metrics() -> None:
    request = build_request("PUT", "/notes/12")
    with pytest.raises(MethodNotAllowed) as error:
        await dispatch(request)
    assert error.value.allowed == ("GET", "HEAD", "DELETE")
    assert request.route_path == "/notes/{number}"


@pytest.mark.parametrize(
    ("rejected", "error"),
    [
        (build_request("POST", "/notes", body=b'{"other": 1}'), NoToken),
        (
            build_request("POST", "/notes", body=b'{"other": 1}', headers=[(b"authorization", b"Bearer bad")]),
            InvalidToken,
        ),
        (build_request("POST", "/notes", body=b'{"other": 1}', query=b"x=1", headers=GOOD), UnknownMember),
        (build_request("POST", "/notes", body=b'{"words": "a"}', query=b"x=1", headers=GOOD), UnknownParameter),
        (build_request("GET", "/notes", query=b"after=1&after=2"), DuplicateParameter),
        (build_request("DELETE", "/notes/1", headers=GOOD), MissingParameter),
        (build_request("GET", "/notes", body=b"{}"), BodyNotExpected),
    ],
)
async def test_authentication_comes_first_then_the_body_then_the_parameters(
    rejected: Request, error: type[ServiceError]
) -> None:
    with pytest.raises(error):
        await dispatch(rejected)


async def test_a_handler_gets_the_parsed_body_and_the_principal() -> None:
    request = build_request("POST", "/notes", body=b'{"words": "hello"}', headers=GOOD)
    assert await dispatch(request) == "hello"
    assert request.principal is PRINCIPAL


def test_a_route_that_is_declared_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="GET /notes is declared twice"):
        Router([*bind(SAMPLE, Notes()), *bind(SAMPLE[:1], Notes())], authenticate=_reject)


async def _reject(token: str) -> Principal:
    raise InvalidToken


def test_every_route_of_the_service_is_declared_once_with_a_summary_of_its_own() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES) > 30
    summaries = [route.summary for route in ROUTES]
    assert len(set(summaries)) == len(summaries)
    Router([BoundRoute(route, _unused, None) for route in ROUTES], authenticate=_reject)


async def _unused(_request: Request) -> Response:
    return Response(b"")
