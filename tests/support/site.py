"""A served app populated as the catalogue of bad inputs says."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confide.names import Key
from support import catalogue, wire
from support.app import ADMIN, RunningApp, build_settings, start_app
from support.canaries import make_canary
from support.served import served
from support.wire import Reply

SECRET = make_canary("value")
TYPE = catalogue.TYPE


@dataclass
class Site:
    """A served app populated as the catalogue says."""

    app: RunningApp
    port: int
    values: dict[str, str]
    log: list[str] = field(default_factory=list)

    async def send(self, data: bytes, **more: Any) -> list[Reply]:
        return await wire.exchange(self.port, data, **more)

    async def read(self, token: str, tenant: str = "acme") -> Reply:
        path = f"/config?tenant={tenant}&integration_type={TYPE}"
        headers = [("Authorization", f"Bearer {self.values[token]}")]
        (reply,) = await self.send(wire.request("GET", path, headers))
        return reply

    async def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        async for table, _ in self.app.process.stores.database.dump():
            found[table] = found.get(table, 0) + 1
        return {table: found.get(table, 0) for table in ("changes", "users", "tokens", "replays", "keys")}

    async def forget_failures(self) -> None:
        engine: Any = self.app.process.stores.database._host_engine
        await engine.query("SELECT 1")
        for login in ("alice", "bob", "nobody-here", "nobody-here-2", "disabled", "nfc-user"):
            counted = self.app.process.encryption.compute_mac("audit", b"login " + login.encode())
            await self.app.process.stores.users.clear_attempts(counted, "127.0.0.1")


class Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


async def furnish(app: RunningApp) -> dict[str, str]:
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
        # The second version: entries call the first one stale.
        for document in ({"username": "first"}, configuration):
            saved = await app.save(values[f"tok_{role}"], document, tenant=tenant)
            assert saved.status_code == 200
    await app.process.stores.retention.prune(Key("acme", TYPE), after=0, until=1, limit=1)
    return values | {"tok_revoked": revoked, "tok_reader_sha256": sha256, **await _cursors(app, values["tok_admin"])}


async def _cursors(app: RunningApp, admin: str) -> dict[str, str]:
    """Positions: of globex's last change, of a log that is no more, and of one that never was."""
    params = {"tenant": "globex", "integration_type": TYPE}
    listed = await app.request("GET", "/config/versions", token=admin, params=params)
    position = listed.json()["versions"][0]["position"]
    epoch, *numbers = position.split(".")
    ahead = ".".join([epoch, *(str(int(number) + 10**12) for number in numbers)])
    return {"cursor_globex": position, "cursor_old": position.replace(epoch, "0" * 16), "cursor_future": ahead}


@asynccontextmanager
async def site_at(folder: Path, database: str | None) -> AsyncIterator[Site]:
    async with start_app(build_settings(folder / "data", database)) as app:
        values = await furnish(app)
        async with served(app) as port:
            built = Site(app, port, values)
            handler = Lines(built.log)
            logging.getLogger().addHandler(handler)
            yield built
            logging.getLogger().removeHandler(handler)
            (folder / "service.log").write_text("\n".join(built.log))
