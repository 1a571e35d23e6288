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
from support.app import ADMIN, TYPE, RunningApp
from support.canaries import make_canary

ROLES: dict[str, list[tuple[str, str, str]]] = {
    "nobody": [],
    "viewer": [("viewer", "acme", "*")],
    "reader": [("reader", "acme", "*")],
    "editor": [("editor", "acme*", TYPE)],
    "admin": list(ADMIN),
}
ROLE_ORDER = list(ROLES)
TARGETS = {"own": "acme", "foreign": "globex", "missing": "initech"}


@dataclass(frozen=True)
class Requirement:
    """The role that a route requires, and the object that it requires the role on."""

    role: str
    target: str = "key"


TARGET_NAMES = {
    Target.CONFIG: "key",
    Target.INTEGRATION_TYPE: "type",
    Target.STORE: "whole",
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


class MatrixClient:
    """A client with a user of each role and two tenants with unique secrets."""

    def __init__(self, app: RunningApp) -> None:
        self.app = app
        self.secrets = {tenant: make_canary(tenant) for tenant in ("acme", "globex")}
        self._numbers = itertools.count()

    async def add_users(self) -> None:
        for role, grants in ROLES.items():
            await self.app.add_user(role, *grants)
        await self.app.add_user("victim", ("editor", "globex", "*"))

    async def reset(self) -> None:
        admin = await self.app.create_token("admin")
        for tenant, secret in self.secrets.items():
            await self.app.save(admin, {"host": secret, "password": secret}, tenant=tenant)
            put = {"schema": {"type": "object"}}
            await self.app.request("PUT", f"/integration-types/{tenant}", token=admin, json=put)
        await self.app.request("DELETE", "/tenants/initech", token=admin, params={"confirm": "initech"})
        await self.app.request("DELETE", "/integration-types/initech", token=admin)
        for login in TARGETS.values():
            if login != "initech" and await self.app.process.stores.users.read(login) is None:
                await self.app.add_user(login)

    async def request_route(self, route: tuple[str, str], role: str | None, target: str) -> httpx2.Response:
        method, path = route
        token = None if role is None else await self.app.create_token(role)
        name = TARGETS[target]
        more: dict[str, Any] = {}
        if path.startswith("/config/") and target == "missing":
            name = "hooli"  # a deleted config has a history
        if path.startswith("/config") and "export" not in path and method in ("GET", "DELETE"):
            more["params"] = {"tenant": name, "integration_type": TYPE}
        if path == "/config" and method in ("POST", "PUT"):
            document = {"tenant": name, "integration_type": TYPE, "configuration": {"n": next(self._numbers)}}
            more["json"] = document
        if path == "/watch":
            more["params"] = {"tenant": name, "integration_type": TYPE, "wait": "0"}
        if path == "/config/diff":
            more["params"] |= {"from": "0", "to": "1"}
        if path == "/config/rollback":
            more["json"] = {"tenant": name, "integration_type": TYPE, "version": 1}
        path = path.replace("{version}", "1")
        bodies: dict[str, Any] = {
            "POST /user": {"login": f"new-{next(self._numbers)}"},
            "PATCH /users/{login}": {"disabled": False},
            "PUT /users/me/password": {"old": "wrong one, this", "new": "never mind, never set"},
            "POST /login": {"login": name, "password": "wrong one, this"},
            "POST /tokens": {"label": "t"},
            "PUT /integration-types/{name}": {"schema": {"maxProperties": 100 + next(self._numbers)}},
        }
        if body := bodies.get(f"{method} {path}"):
            more["json"] = body
        if "{tenant}" in path:
            more["params"] = {"confirm": name}
        token_ids = {"own": "me", "foreign": "victim"}
        if "{token_id}" in path:
            number = await self._token_id(role or "nobody" if target == "own" else token_ids.get(target))
            path = path.replace("{token_id}", str(number))
        path = path.replace("{login}", name).replace("{tenant}", name).replace("{name}", name)
        return await self.app.request(method, path, token=token, **more)

    async def _token_id(self, login: str | None) -> int:
        if login is None:
            return 999_999_999
        token = await self.app.create_token(login)
        return (await self.app.process.identity.tokens.authenticate(token)).token_id


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
async def client(app: RunningApp) -> MatrixClient:
    new_client = MatrixClient(app)
    await new_client.add_users()
    return new_client


async def test_every_documented_route_is_in_the_matrix(app: RunningApp) -> None:
    document = (await app.request("GET", "/openapi.json")).json()
    assert set(list_routes(document)) == set(REQUIREMENTS)


async def test_every_route_requires_the_role_that_it_declares(client: MatrixClient) -> None:
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


async def test_foreign_and_missing_objects_get_identical_responses(client: MatrixClient) -> None:
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


async def test_only_public_routes_work_without_a_token(client: MatrixClient) -> None:
    await client.reset()
    for route, requirement in REQUIREMENTS.items():
        reply = await client.request_route(route, None, "own")
        if requirement.target == "open":
            assert reply.status_code in (200, 401)
            assert reply.json().get("code", "login-failed") == "login-failed"
        else:
            assert (reply.status_code, reply.json()["code"]) == (401, "no-token"), route
        assert canaries.find_canary(reply.content) is None


async def test_a_restricted_token_cannot_exceed_or_widen_its_grants(client: MatrixClient) -> None:
    await client.reset()
    restricted = await client.app.create_token("admin", narrowed=[("viewer", "acme", "*")])
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


async def test_denied_access_is_audited_with_user_and_config(client: MatrixClient) -> None:
    await client.reset()
    await client.request_route(("POST", "/config"), "viewer", "foreign")
    rows = [row async for table, row in client.app.process.stores.database.dump() if table == "audit"]
    principal = await client.app.process.identity.tokens.authenticate(await client.app.create_token("viewer"))
    denied = [row for row in rows if row[2:5] == ("save", "denied", principal.user_id)]
    assert [(row[8], row[9]) for row in denied] == [("globex", TYPE)]
