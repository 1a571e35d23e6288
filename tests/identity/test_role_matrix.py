"""Every route x every role x {own, foreign, missing}: computed from one table, foreign and missing alike."""

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
from support.canaries import canary

ROLES: dict[str, list[tuple[str, str, str]]] = {
    "nobody": [],
    "viewer": [("viewer", "acme", "*")],
    "reader": [("reader", "acme", "*")],
    "editor": [("editor", "acme*", TYPE)],
    "admin": list(ADMIN),
}
LADDER = list(ROLES)
TARGETS = {"own": "acme", "foreign": "globex", "missing": "initech"}


@dataclass(frozen=True)
class Row:
    """What a route needs: a role on the key that is meant, on the whole, or nothing."""

    role: str
    on: str = "key"


ON = {
    Target.CONFIG: "key",
    Target.INTEGRATION_TYPE: "type",
    Target.STORE: "whole",
    Target.VISIBLE: "list",
    Target.SELF: "self",
    Target.TOKEN: "token",
    Target.PUBLIC: "open",
}
# The declarations of the routes: each cell of the matrix holds the service to what they say.
ROWS = {
    (route.method, route.path): Row(
        "nobody" if route.access.role is None else route.access.role.name.lower(), ON[route.access.target]
    )
    for route in ROUTES
    if route.is_documented
}
# What one sees of a missing thing with enough of a role: there is nothing, or it is made.
MAKES = {
    ("POST", "/config"),
    ("PUT", "/config"),
    ("POST", "/user"),
    ("POST", "/tokens"),
    ("PUT", "/integration-types/{name}"),
    ("GET", "/watch"),
}


class Estate:
    """An app with two tenants whose every value is a canary of its own, and one user of each role."""

    def __init__(self, app: RunningApp) -> None:
        self.app = app
        self.secrets = {tenant: canary(tenant) for tenant in ("acme", "globex")}
        self._numbers = itertools.count()

    async def furnish(self) -> None:
        for role, grants in ROLES.items():
            await self.app.user(role, *grants)
        await self.app.user("victim", ("editor", "globex", "*"))

    async def reset(self) -> None:
        admin = await self.app.token("admin")
        for tenant, secret in self.secrets.items():
            await self.app.save(admin, {"host": secret, "password": secret}, tenant=tenant)
            put = {"schema": {"type": "object"}}
            await self.app.ask("PUT", f"/integration-types/{tenant}", token=admin, json=put)
        await self.app.ask("DELETE", "/tenants/initech", token=admin, params={"confirm": "initech"})
        await self.app.ask("DELETE", "/integration-types/initech", token=admin)
        for login in TARGETS.values():
            if login != "initech" and await self.app.process.stores.users.read(login) is None:
                await self.app.user(login)

    async def ask(self, route: tuple[str, str], role: str | None, target: str) -> httpx2.Response:
        method, path = route
        token = None if role is None else await self.app.token(role)
        name = TARGETS[target]
        more: dict[str, Any] = {}
        if path.startswith("/config/") and target == "missing":
            name = "hooli"  # what once was has a history
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
        return await self.app.ask(method, path, token=token, **more)

    async def _token_id(self, login: str | None) -> int:
        if login is None:
            return 999_999_999
        token = await self.app.token(login)
        return (await self.app.process.identity.tokens.authenticate(token)).token_id


def routes(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for path, operations in document["paths"].items():
        for method in operations:
            yield method.upper(), path


def comparable(reply: httpx2.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    headers = [(n, v) for n, v in reply.headers.items() if n not in ("date", "request-id")]
    return reply.status_code, reply.content, headers


def expected(route: tuple[str, str], role: str, target: str) -> set[int]:
    row = ROWS[route]
    enough = LADDER.index(role) >= LADDER.index(row.role)
    if row.on in ("open", "list", "self"):
        return {403} if route[1] == "/users/me/password" else {200}
    if row.on == "token":
        return {200} if target == "own" or (role == "admin" and target == "foreign") else {404}
    if row.on == "whole":
        if not enough:
            return {403}
        return {404} if target == "missing" and route not in MAKES and "{" in route[1] else {200}
    is_covered = role == "admin" or (role != "nobody" and target == "own")
    if row.on == "type":  # it belongs to no tenant: whoever has a grant on any type sees it
        is_covered = role in ("viewer", "reader", "admin")
    if is_covered and not enough:
        return {403}
    return {200} if is_covered and (target != "missing" or route in MAKES) else {404}


@pytest.fixture
async def estate(app: RunningApp) -> Estate:
    built = Estate(app)
    await built.furnish()
    return built


async def test_a_route_without_a_row_fails_the_build(app: RunningApp) -> None:
    document = (await app.ask("GET", "/openapi.json")).json()
    assert set(routes(document)) == set(ROWS)


async def test_every_cell_is_answered_as_the_table_says(estate: Estate) -> None:
    cells = 0
    for route, role, target in itertools.product(ROWS, ROLES, TARGETS):
        if route == ("POST", "/login"):
            continue  # its own tests: it is open, and a wrong password is 401 for everybody
        await estate.reset()
        reply = await estate.ask(route, role, target)
        assert reply.status_code in expected(route, role, target), (route, role, target, reply.text)
        if role != "admin":
            assert estate.secrets["globex"].encode() not in reply.content, (route, role, target)
        if role in ("nobody", "viewer"):
            assert b'"password":"cnry' not in reply.content
        cells += 1
    assert cells == (len(ROWS) - 1) * len(ROLES) * len(TARGETS)


async def test_foreign_and_missing_are_alike_byte_for_byte(estate: Estate) -> None:
    await estate.reset()
    keyed = [route for route, row in ROWS.items() if row.on in ("key", "token", "whole")]
    for route, role in itertools.product(keyed, ("nobody", "viewer", "reader", "editor")):
        foreign, missing = [comparable(await estate.ask(route, role, target)) for target in ("foreign", "missing")]
        assert foreign == missing, (route, role)
        assert foreign[0] in (403, 404)
    listed = [await estate.ask(("GET", "/configs"), "editor", target) for target in ("foreign", "missing")]
    assert comparable(listed[0]) == comparable(listed[1])


async def test_without_a_token_only_the_open_routes_answer(estate: Estate) -> None:
    await estate.reset()
    for route, row in ROWS.items():
        reply = await estate.ask(route, None, "own")
        if row.on == "open":
            assert reply.status_code in (200, 401)
            assert reply.json().get("code", "login-failed") == "login-failed"
        else:
            assert (reply.status_code, reply.json()["code"]) == (401, "no-token"), route
        assert canaries.found_in(reply.content) is None


async def test_a_narrowed_token_is_never_more_than_its_grants_and_cannot_widen_itself(estate: Estate) -> None:
    await estate.reset()
    narrow = await estate.app.token("admin", narrowed=[("viewer", "acme", "*")])
    assert (await estate.app.read(narrow)).json()["configuration"]["password"] == "********"
    assert (await estate.app.read(narrow, tenant="globex")).status_code == 404
    assert (await estate.app.save(narrow, {"a": 1})).status_code == 403
    for method, path, body in (
        ("POST", "/tokens", {"label": "wider"}),
        ("POST", "/user", {"login": "evil"}),
        ("PUT", "/users/me/password", {"old": "x", "new": "violet kettle on the moon"}),
        ("GET", "/users", None),
    ):
        reply = await estate.app.ask(method, path, token=narrow, json=body)
        assert reply.status_code == 403, path
    tokens = (await estate.app.ask("GET", "/tokens", token=narrow)).json()["tokens"]
    assert {token["login"] for token in tokens} == {"admin"}


async def test_denials_are_audited_and_say_who_and_what(estate: Estate) -> None:
    await estate.reset()
    await estate.ask(("POST", "/config"), "viewer", "foreign")
    rows = [row async for table, row in estate.app.process.stores.database.dump() if table == "audit"]
    principal = await estate.app.process.identity.tokens.authenticate(await estate.app.token("viewer"))
    denied = [row for row in rows if row[2:5] == ("save", "denied", principal.user_id)]
    assert [(row[8], row[9]) for row in denied] == [("globex", TYPE)]
