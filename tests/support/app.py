"""The app under test: real parts on a real database, and users for each role."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx2

from confide.clock import read_wall_clock
from confide.database.engine import statement
from confide.identity import model
from confide.identity.hasher import Argon2Hasher
from confide.identity.model import Grant, NewUser, Principal
from confide.names import ConfigKey
from confide.server.application import Application
from confide.server.preparation import prepare
from confide.server.process import Process
from confide.server.settings import Settings
from confide.server.wiring import open_process, subscribe
from support.canaries import make_canary

ADMIN = (("admin", "*", "*"),)
TYPE = "flight-information-system"
PASSWORD = make_canary("password")


@cache
def compute_password_hash() -> str:
    hasher = Argon2Hasher()
    try:
        return hasher._compute_hash(PASSWORD)
    finally:
        hasher.close()


def build_grants(*triples: tuple[str, str, str]) -> tuple[Grant, ...]:
    return tuple(model.parse_grant(*triple) for triple in triples)


@dataclass
class RunningApp:
    """The parts of one process, an HTTP client of its application, and users on demand."""

    settings: Settings
    process: Process
    http: httpx2.AsyncClient

    async def add_user(self, login: str, *triples: tuple[str, str, str], password: str | None = None) -> int:
        """Add a user. Without `password`, a hash of the shared test password is reused, which is fast."""
        audit = self.process.configs.writer._recorder.sign("add user", "added", principal=None)
        new = NewUser(login, build_grants(*triples), password or compute_password_hash())
        return await self.process.stores.users.add(new, audit=audit)

    async def load_principal(self, login: str, *triples: tuple[str, str, str]) -> Principal:
        return await self.process.identity.tokens.authenticate(await self.create_token(login, *triples))

    async def create_token(
        self, login: str, *triples: tuple[str, str, str], token_grants: Sequence[tuple[str, str, str]] | None = None
    ) -> str:
        """Create a token of a user, and first the user if it does not exist."""
        if await self.process.stores.users.read(login) is None:
            await self.add_user(login, *triples)
        user = await self.process.stores.users.read(login)
        assert user is not None
        added = await self.process.identity.tokens._create(
            user,
            label="test",
            grants=None if token_grants is None else build_grants(*token_grants),
            expires_at=read_wall_clock() + 10**12,
            principal=None,
            password_hash=user.password if token_grants is None else None,
        )
        assert added is not None
        return added[0]

    async def execute_sql(self, text: str, *args: Any) -> Any:
        """Run a statement as an attacker of the database would, in a transaction of its own."""
        engine: Any = self.process.stores.database._host_engine

        def run() -> Any:
            return (yield statement(text, *args))

        return await engine.transact(run())

    async def read_configuration(self, key: ConfigKey, *, principal: Principal) -> Any:
        """Read the configuration that the service returns to a principal."""
        found = await self.process.reads.reader.read(key, principal=principal)
        return json.loads(found.response.body)["configuration"]

    async def request(
        self, method: str, path: str, *, token: str | None = None, json: Any = None, **more: Any
    ) -> httpx2.Response:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return await self.http.request(method, path, json=json, headers=headers, **more)

    async def save(
        self, token: str, configuration: Any, *, tenant: str = "acme", type_: str = TYPE, **more: Any
    ) -> Any:
        document = {"tenant": tenant, "integration_type": type_, "configuration": configuration}
        return await self.request("POST", "/config", token=token, json=document, **more)

    async def read(self, token: str, *, tenant: str = "acme", type_: str = TYPE, **more: Any) -> Any:
        return await self.request(
            "GET", "/config", token=token, params={"tenant": tenant, "integration_type": type_}, **more
        )


def build_settings(data: Path, database: str | None, **more: Any) -> Settings:
    return Settings(data=data, database=database, unsafe_durability=True, **more)


@asynccontextmanager
async def start_app(settings: Settings, *, setup_token: str = "") -> AsyncIterator[RunningApp]:
    await prepare(settings)
    async with open_process(settings, setup_token=setup_token) as process:
        application = Application(lambda: process)
        transport = httpx2.ASGITransport(app=application)
        client = httpx2.AsyncClient(transport=transport, base_url="http://localhost")
        async with client as http, subscribe(process):
            yield RunningApp(settings, process, http)
