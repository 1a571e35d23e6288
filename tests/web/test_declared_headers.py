"""Each route declares the headers that its handler reads and sends, and no others."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from confide.configs import routes as config_routes
from confide.errors import Busy, VersionConflict
from confide.identity.errors import NoToken
from confide.identity.model import Scope
from confide.reads.plain_read import RELEVANT_HEADERS
from confide.reads.reader import ConfigReader
from confide.reads.response import ReadResult
from confide.server.api import ROUTES, build_document
from confide.web.errors import MethodNotAllowed
from confide.web.parameters import read_scope
from confide.web.problems import build_problem
from confide.web.request import Request
from confide.web.response import POLICY, SAFE, Response, build_json_response
from confide.web.route import Header, ResponseHeader, Route
from confide.web.sse import EVENT_STREAM
from support.app import PASSWORD, RunningApp
from support.route_requests import RouteClient

# Headers of the connection, the body and the token. Every route treats them alike. `Accept` selects a media type.
COMMON_REQUEST_HEADERS = {
    "accept",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "transfer-encoding",
    "upgrade",
}
COMMON_RESPONSE_HEADERS = {name.decode() for name, _ in (*SAFE, POLICY)} | {
    "content-length",
    "content-type",
    "request-id",
}


@dataclass
class UsedHeaders:
    """The headers that a handler read and sent."""

    read: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)


class HeaderRecorder:
    """Records the headers that are read from a `Request`, and those of successful responses."""

    def __init__(self, app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
        self._client = RouteClient(app)
        self._monkeypatch = monkeypatch
        self._used = UsedHeaders()
        for name in ("find_header", "find_list_header", "has_header"):
            self._record_calls(name)

    async def prepare(self) -> None:
        await self._client.add_users()

    async def observe(self, route: Route[Any]) -> UsedHeaders:
        """Send requests to a route, as an admin: one, its retry, a dry run, and one that gets a stale response."""
        await self._client.reset()
        self._used = UsedHeaders()
        # `If-Match` also leads a read around the fast path, which reads its headers from bytes.
        headers = {"If-Match": "*", "Idempotency-Key": f"{route.method}-{route.path}"}
        address = (route.method, route.path)
        first = await self._client.request_route(address, "admin", "own", headers=headers, password=PASSWORD)
        assert first.is_success, (route.method, route.path, first.text)
        self._add_sent(first)
        await self._repeat(first)
        if "dry_run" in route.known_parameters:
            await self._repeat(first, dry_run="true")
        with self._monkeypatch.context() as patch:
            patch.setattr(ConfigReader, "read", _return_stale(ConfigReader.read))
            await self._repeat(first)
        return self._used

    def _record_calls(self, method: str) -> None:
        original = getattr(Request, method)

        def record(request: Request, name: bytes) -> Any:
            self._used.read.add(name.decode())
            return original(request, name)

        self._monkeypatch.setattr(Request, method, record)

    async def _repeat(self, first: httpx2.Response, **parameters: str) -> None:
        sent = first.request
        url = sent.url.copy_merge_params(parameters) if parameters else sent.url
        self._add_sent(
            await self._client.app.http.request(sent.method, url, headers=sent.headers, content=sent.content)
        )

    def _add_sent(self, reply: httpx2.Response) -> None:
        if reply.is_success:
            self._used.sent.update(reply.headers.keys())


def _return_stale(read: Any) -> Any:
    async def read_stale(reader: ConfigReader, *arguments: Any, **more: Any) -> ReadResult:
        result: ReadResult = await read(reader, *arguments, **more)
        return result._replace(stale_seconds=1)

    return read_stale


def find_differences(route: Route[Any], used: UsedHeaders) -> list[str]:
    """Return the headers that a route uses without a declaration, or declares without a use."""
    read, sent = used.read - COMMON_REQUEST_HEADERS, used.sent - COMMON_RESPONSE_HEADERS
    declared = {header.name.lower() for header in route.headers}
    declared_sent = {header.name.lower() for header in route.returns.headers}
    found = [f"reads {name}, which is not declared" for name in sorted(read - declared)]
    found += [f"declares {name}, which it does not read" for name in sorted(declared - read)]
    found += [f"sends {name}, which is not declared" for name in sorted(sent - declared_sent)]
    found += [f"declares {name}, which it does not send" for name in sorted(declared_sent - sent)]
    if "accept" in used.read and EVENT_STREAM not in {media_type.name for media_type in route.returns.media_types}:
        found.append(f"selects {EVENT_STREAM}, which is not declared")
    return found


@pytest.fixture
async def recorder(sqlite_app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> HeaderRecorder:
    built = HeaderRecorder(sqlite_app, monkeypatch)
    await built.prepare()
    return built


async def test_every_route_declares_exactly_the_headers_that_it_reads_and_sends(recorder: HeaderRecorder) -> None:
    found = {
        f"{route.method} {route.path}": find_differences(route, await recorder.observe(route))
        for route in ROUTES
        if route.is_documented
    }
    assert {route: differences for route, differences in found.items() if differences} == {}


def find_route(method: str, path: str) -> Route[Any]:
    return next(route for route in ROUTES if (route.method, route.path) == (method, path))


async def test_a_deliberately_wrong_declaration_is_found(recorder: HeaderRecorder) -> None:
    route = find_route("GET", "/config")
    used = await recorder.observe(route)
    without_headers = replace(route, headers=(), returns=replace(route.returns, headers=()))
    assert find_differences(without_headers, used) == [
        "reads cache-control, which is not declared",
        "reads config-min-version, which is not declared",
        "reads if-match, which is not declared",
        "reads if-none-match, which is not declared",
        "sends config-freshness, which is not declared",
        "sends config-version, which is not declared",
        "sends etag, which is not declared",
    ]
    with_others = replace(
        route,
        headers=(*route.headers, Header("Prefer", "…")),
        returns=replace(route.returns, headers=(*route.returns.headers, ResponseHeader("Link", "string"))),
    )
    assert find_differences(with_others, used) == [
        "declares prefer, which it does not read",
        "declares link, which it does not send",
    ]


async def test_a_handler_that_deliberately_uses_undeclared_headers_is_found(
    recorder: HeaderRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_scope_and_region(request: Request) -> Scope:
        request.find_header(b"region")
        return read_scope(request)

    def build_response_with_link(value: Any) -> Response:
        return build_json_response(value).with_header(b"link", b"</configs>")

    monkeypatch.setattr(config_routes, "read_scope", read_scope_and_region)
    monkeypatch.setattr(config_routes, "build_json_response", build_response_with_link)
    route = find_route("GET", "/configs")
    assert find_differences(route, await recorder.observe(route)) == [
        "reads region, which is not declared",
        "sends link, which is not declared",
    ]


def test_errors_have_exactly_the_headers_that_the_document_declares() -> None:
    errors = (
        NoToken(),
        MethodNotAllowed(allowed=("GET",)),
        VersionConflict(current_tag='"3"'),
        Busy(retry_after_seconds=1),
    )
    sent = {name.decode() for error in errors for name, _ in build_problem(error).build_headers()}
    declared = build_document()["paths"]["/configs"]["get"]["responses"]["default"]["headers"]
    assert sent - COMMON_RESPONSE_HEADERS == {name.lower() for name in declared}


async def test_a_deliberately_undeclared_event_stream_is_found(recorder: HeaderRecorder) -> None:
    route = find_route("PUT", "/integration-types/{name}")
    without_events = replace(route, returns=replace(route.returns, media_types=()))
    differences = find_differences(without_events, await recorder.observe(route))
    assert differences == ["selects text/event-stream, which is not declared"]


def test_the_fast_path_reads_only_headers_that_the_route_declares() -> None:
    declared = {header.name.lower() for header in find_route("GET", "/config").headers}
    assert {name.decode() for name in RELEVANT_HEADERS} - COMMON_REQUEST_HEADERS == declared


def test_no_handler_reads_headers_in_a_way_that_is_not_recorded() -> None:
    sources = {Path(inspect.getfile(inspect.unwrap(route.handler))).read_text() for route in ROUTES}
    assert len(sources) > 1
    assert not any('["headers"]' in source for source in sources)
