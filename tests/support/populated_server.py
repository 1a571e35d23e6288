"""A server with the users, tokens and configs that the bad-input cases expect."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confide.names import ConfigKey
from support import bad_inputs, raw_http
from support.app import ADMIN, RunningApp, build_settings, start_app
from support.canaries import make_canary
from support.http_server import serve_app
from support.raw_http import Reply

SECRET = make_canary("value")
TYPE = bad_inputs.TYPE


@dataclass
class PopulatedServer:
    """A running server, its app, and the values that fill the placeholders of the cases."""

    app: RunningApp
    port: int
    values: dict[str, str]
    log: list[str] = field(default_factory=list)

    async def send(self, data: bytes, **more: Any) -> list[Reply]:
        return await raw_http.exchange(self.port, data, **more)

    async def read(self, token: str, tenant: str = "acme") -> Reply:
        path = f"/config?tenant={tenant}&integration_type={TYPE}"
        headers = [("Authorization", f"Bearer {self.values[token]}")]
        (reply,) = await self.send(raw_http.build_request("GET", path, headers))
        return reply

    async def count_rows(self) -> dict[str, int]:
        found: dict[str, int] = {}
        async for table, _ in self.app.process.stores.database.dump():
            found[table] = found.get(table, 0) + 1
        return {table: found.get(table, 0) for table in ("changes", "users", "tokens", "replays", "keys")}

    async def clear_login_attempts(self) -> None:
        engine: Any = self.app.process.stores.database._host_engine
        await engine.query("SELECT 1")
        for login in ("alice", "bob", "nobody-here", "nobody-here-2", "disabled", "nfc-user"):
            counted = self.app.process.encryption.compute_mac("audit", b"login " + login.encode())
            await self.app.process.stores.users.clear_attempts(counted)
        over_all_logins = self.app.process.encryption.compute_mac("audit", b"all logins 127.0.0.1")
        await self.app.process.stores.users.clear_attempts(over_all_logins)


class LineHandler(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


async def populate(app: RunningApp) -> dict[str, str]:
    logins = {
        "reader": [("viewer", "acme", "*")],
        "editor": [("editor", "acme", "*")],
        "other": [("editor", "globex", "*")],
        "admin": list(ADMIN),
    }
    values = {f"tok_{role}": await app.create_token(f"role-{role}", *grants) for role, grants in logins.items()}
    hashed = await app.process.hasher.hash("pass-\u00e9-long-enough")
    await app.add_user("nfc-user", password=hashed)
    for login in ("alice", "bob", "disabled"):
        await app.add_user(login)
    await app.process.identity.users.change(
        "disabled", principal=await app.load_principal("role-admin"), is_disabled=True
    )
    revoked = await app.create_token("role-reader")
    principal = await app.process.identity.tokens.authenticate(revoked)
    await app.process.identity.tokens.logout(principal=principal)
    sha256 = hashlib.sha256(values["tok_reader"].encode()).hexdigest()
    configuration = {"username": "u", "password": SECRET, "wsdl_urls": {"session_url": "a", "booking_url": "b"}}
    for role, tenant in (("editor", "acme"), ("other", "globex")):
        # Two versions, because some cases send the first tag as a stale one.
        for document in ({"username": "first"}, configuration):
            saved = await app.save(values[f"tok_{role}"], document, tenant=tenant)
            assert saved.status_code == 200
    await app.process.stores.retention.prune(ConfigKey("acme", TYPE), after=0, until=1, limit=1)
    return values | {"tok_revoked": revoked, "tok_reader_sha256": sha256, **await _cursors(app, values["tok_admin"])}


async def _cursors(app: RunningApp, admin: str) -> dict[str, str]:
    """Build watch positions: the last change of globex, one of an earlier log, and one ahead of the log."""
    params = {"tenant": "globex", "integration_type": TYPE}
    listed = await app.request("GET", "/config/versions", token=admin, params=params)
    position = listed.json()["versions"][0]["position"]
    epoch, *numbers = position.split(".")
    ahead = ".".join([epoch, *(str(int(number) + 10**12) for number in numbers)])
    return {"cursor_globex": position, "cursor_old": position.replace(epoch, "0" * 16), "cursor_future": ahead}


@asynccontextmanager
async def start_populated_server(folder: Path, database: str | None) -> AsyncIterator[PopulatedServer]:
    async with start_app(build_settings(folder / "data", database)) as app:
        values = await populate(app)
        async with serve_app(app) as port:
            built = PopulatedServer(app, port, values)
            handler = LineHandler(built.log)
            logging.getLogger().addHandler(handler)
            yield built
            logging.getLogger().removeHandler(handler)
            (folder / "service.log").write_text("\n".join(built.log))
