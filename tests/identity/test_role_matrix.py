"""Each route is tested with each role and with an own, a foreign and a missing object."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from confide.server.api import ROUTES
from confide.web.route import Target
from support import canaries
from support.app import TYPE, RunningApp
from support.route_requests import ROLES, TARGETS, RouteClient

ROLE_ORDER = list(ROLES)


@dataclass(frozen=True)
class Requirement:
    """The role that a route requires, and the object that it requires the role on."""

    role: str
    target: str = "key"


TARGET_NAMES = {
    Target.CONFIG: "key",
    Target.INTEGRATION_TYPE: "type",
    Target.SERVICE: "whole",
    Target.VISIBLE: "list",
    Target.SELF: "self",
    Target.TOKEN: "token",
    Target.PUBLIC: "open",
}
# The requirements that the routes declare.
REQUIREMENTS = {
    (route.method, route.path): Requirement(
        "nobody" if route.access.role is None else route.access.role.name.lower(), TARGET_NAMES[route.access.target]
    )
    for route in ROUTES
    if route.is_documented
}
# Routes that succeed for a missing object, mostly because they create it.
CREATES = {
    ("POST", "/config"),
    ("PUT", "/config"),
    ("POST", "/user"),
    ("POST", "/tokens"),
    ("PUT", "/integration-types/{name}"),
    ("GET", "/watch"),
}


def list_routes(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for path, operations in document["paths"].items():
        for method in operations:
            yield method.upper(), path


def extract_comparable(reply: httpx2.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    headers = [(n, v) for n, v in reply.headers.items() if n not in ("date", "request-id")]
    return reply.status_code, reply.content, headers


def list_expected_statuses(route: tuple[str, str], role: str, target: str) -> set[int]:
    requirement = REQUIREMENTS[route]
    is_role_sufficient = ROLE_ORDER.index(role) >= ROLE_ORDER.index(requirement.role)
    if requirement.target in ("open", "list", "self"):
        return {403} if route[1] == "/users/me/password" else {200}
    if requirement.target == "token":
        return {200} if target == "own" or (role == "admin" and target == "foreign") else {404}
    if requirement.target == "whole":
        if not is_role_sufficient:
            return {403}
        return {404} if target == "missing" and route not in CREATES and "{" in route[1] else {200}
    is_covered = role == "admin" or (role != "nobody" and target == "own")
    if requirement.target == "type":  # it has no tenant: a grant on the type for any tenant is enough
        is_covered = role in ("viewer", "reader", "admin")
    if is_covered and not is_role_sufficient:
        return {403}
    return {200} if is_covered and (target != "missing" or route in CREATES) else {404}


@pytest.fixture
async def client(app: RunningApp) -> RouteClient:
    new_client = RouteClient(app)
    await new_client.add_users()
    return new_client


async def test_every_documented_route_is_in_the_matrix(app: RunningApp) -> None:
    document = (await app.request("GET", "/openapi.json")).json()
    assert set(list_routes(document)) == set(REQUIREMENTS)


async def test_every_route_requires_the_role_that_it_declares(client: RouteClient) -> None:
    cells = 0
    for route, role, target in itertools.product(REQUIREMENTS, ROLES, TARGETS):
        if route == ("POST", "/login"):
            continue  # other tests cover it: a wrong password gets 401 from any caller
        await client.reset()
        reply = await client.request_route(route, role, target)
        assert reply.status_code in list_expected_statuses(route, role, target), (route, role, target, reply.text)
        if role != "admin":
            assert client.secrets["globex"].encode() not in reply.content, (route, role, target)
        if role in ("nobody", "viewer"):
            assert b'"password":"cnry' not in reply.content
        cells += 1
    assert cells == (len(REQUIREMENTS) - 1) * len(ROLES) * len(TARGETS)


async def test_foreign_and_missing_objects_get_identical_responses(client: RouteClient) -> None:
    await client.reset()
    routes_with_keys = [
        route for route, requirement in REQUIREMENTS.items() if requirement.target in ("key", "token", "whole")
    ]
    for route, role in itertools.product(routes_with_keys, ("nobody", "viewer", "reader", "editor")):
        foreign, missing = [
            extract_comparable(await client.request_route(route, role, target)) for target in ("foreign", "missing")
        ]
        assert foreign == missing, (route, role)
        assert foreign[0] in (403, 404)
    listed = [await client.request_route(("GET", "/configs"), "editor", target) for target in ("foreign", "missing")]
    assert extract_comparable(listed[0]) == extract_comparable(listed[1])


async def test_only_public_routes_work_without_a_token(client: RouteClient) -> None:
    await client.reset()
    for route, requirement in REQUIREMENTS.items():
        reply = await client.request_route(route, None, "own")
        if requirement.target == "open":
            assert reply.status_code in (200, 401)
            assert reply.json().get("code", "login-failed") == "login-failed"
        else:
            assert (reply.status_code, reply.json()["code"]) == (401, "no-token"), route
        assert canaries.find_canary(reply.content) is None


async def test_a_restricted_token_cannot_exceed_or_widen_its_grants(client: RouteClient) -> None:
    await client.reset()
    restricted = await client.app.create_token("admin", token_grants=[("viewer", "acme", "*")])
    assert (await client.app.read(restricted)).json()["configuration"]["password"] == "********"
    assert (await client.app.read(restricted, tenant="globex")).status_code == 404
    assert (await client.app.save(restricted, {"a": 1})).status_code == 403
    for method, path, body in (
        ("POST", "/tokens", {"label": "wider"}),
        ("POST", "/user", {"login": "evil"}),
        ("PUT", "/users/me/password", {"old": "x", "new": "violet kettle on the moon"}),
        ("GET", "/users", None),
    ):
        reply = await client.app.request(method, path, token=restricted, json=body)
        assert reply.status_code == 403, path
    tokens = (await client.app.request("GET", "/tokens", token=restricted)).json()["tokens"]
    assert {token["login"] for token in tokens} == {"admin"}


async def test_denied_access_is_audited_with_user_and_config(client: RouteClient) -> None:
    await client.reset()
    await client.request_route(("POST", "/config"), "viewer", "foreign")
    rows = [row async for table, row in client.app.process.stores.database.dump() if table == "audit"]
    principal = await client.app.process.identity.tokens.authenticate(await client.app.create_token("viewer"))
    denied = [row for row in rows if row[2:5] == ("save", "denied", principal.user_id)]
    assert [(row[8], row[9]) for row in denied] == [("globex", TYPE)]
