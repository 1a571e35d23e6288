"""A client that sends one valid request to each route, with any role, about an own, a foreign or a missing object."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import httpx2

from support.app import ADMIN, TYPE, RunningApp
from support.canaries import make_canary

ROLES: dict[str, list[tuple[str, str, str]]] = {
    "nobody": [],
    "viewer": [("viewer", "acme", "*")],
    "reader": [("reader", "acme", "*")],
    "editor": [("editor", "acme*", TYPE)],
    "admin": list(ADMIN),
}
TARGETS = {"own": "acme", "foreign": "globex", "missing": "initech"}


WRONG_PASSWORD = "wrong one, this"


class RouteClient:
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

    async def request_route(
        self,
        route: tuple[str, str],
        role: str | None,
        target: str,
        *,
        password: str = WRONG_PASSWORD,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a valid request to a route. Only `password` is wrong, unless the caller passes the right one."""
        method, path = route
        token = None if role is None else await self.app.create_token(role)
        name = TARGETS[target]
        more: dict[str, Any] = {"headers": headers or {}}
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
            "PUT /users/me/password": {"old": password, "new": "never mind, never set"},
            "POST /login": {"login": name, "password": password},
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
