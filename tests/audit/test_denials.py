"""Denied access is audited at once, and a caller without rights cannot fill the audit log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest

from confide.audit import denials
from confide.audit.denials import MAX_KEYS, WINDOW_SECONDS, DenialRecorder
from confide.errors import DatabaseUnavailable
from confide.identity.model import Principal
from confide.names import ConfigKey
from support.app import ADMIN, TYPE, RunningApp
from support.processes import run_service

VIEWER = (("viewer", "acme", "*"),)


class Denied:
    """A viewer whose requests are denied, and the audit entries about them."""

    def __init__(self, app: RunningApp, token: str) -> None:
        self.app, self.token = app, token

    async def read(self, tenant: str, *, token: str | None = None) -> int:
        params = {"tenant": tenant, "integration_type": TYPE}
        reply = await self.app.request("GET", "/config", token=token or self.token, params=params)
        return int(reply.status_code)

    async def list_entries(self) -> list[tuple[str, str | None, str | None]]:
        """List action, tenant and subject of the denials in the database."""
        rows = [row async for table, row in self.app.process.stores.database.dump() if table == "audit"]
        return [(row[2], row[8], row[11]) for row in sorted(rows, key=lambda row: row[0]) if row[3] == "denied"]

    async def end_minute(self) -> None:
        await self.app.process.audit.denials.flush(is_ending=True)


@pytest.fixture
async def denied(app: RunningApp) -> Denied:
    return Denied(app, await app.create_token("vi", *VIEWER))


async def test_the_first_denial_is_stored_at_once_and_the_others_as_a_number(denied: Denied) -> None:
    assert await denied.read("globex") == 404
    assert await denied.list_entries() == [("read", "globex", None)]
    for _ in range(20):
        assert set(await asyncio.gather(*[denied.read("globex") for _ in range(10)])) == {404}
    assert await denied.list_entries() == [("read", "globex", None)]
    await denied.end_minute()
    assert await denied.list_entries() == [("read", "globex", None), ("read", "globex", "200 more within 60 s")]
    assert await denied.read("globex") == 404
    await denied.end_minute()
    assert len(await denied.list_entries()) == 3


async def test_denials_of_many_configs_share_one_entry(denied: Denied) -> None:
    for number in range(10 * MAX_KEYS):
        assert await denied.read(f"tenant{number}") == 404
    entries = await denied.list_entries()
    assert [tenant for _, tenant, _ in entries] == [*(f"tenant{number}" for number in range(MAX_KEYS)), None]
    action, _, subject = entries[-1]
    assert (action, subject) == (
        "access",
        "more than 20 different denials within 60 s; further ones are counted together",
    )
    await denied.end_minute()
    assert (await denied.list_entries())[MAX_KEYS + 1 :] == [("access", None, f"{9 * MAX_KEYS - 1} more within 60 s")]


async def test_more_tokens_of_a_user_do_not_add_more_entries(denied: Denied) -> None:
    tokens = [await denied.app.create_token("vi", token_grants=VIEWER) for _ in range(MAX_KEYS + 5)]
    for token in tokens:
        assert await denied.read("globex", token=token) == 404
    await denied.end_minute()
    assert len(await denied.list_entries()) == MAX_KEYS + 2


async def test_denied_actions_of_other_users_and_actions_have_entries_of_their_own(denied: Denied) -> None:
    other = await denied.app.create_token("other", *VIEWER)
    for token in (denied.token, other):
        await denied.read("globex", token=token)
        for path in ("/users", "/audit", "/audit/verify"):
            assert (await denied.app.request("GET", path, token=token)).status_code == 403
    actions = [action for action, _, _ in await denied.list_entries()]
    assert sorted(actions) == sorted(2 * ["read", "list users", "read audit", "verify audit"])


async def test_denials_that_concern_no_config_share_an_entry(denied: Denied) -> None:
    principal = await denied.app.load_principal("vi")
    for _ in range(3):
        await denied.app.process.identity.access.record_denial("change password", principal=principal)
    await denied.end_minute()
    assert [subject for _, _, subject in await denied.list_entries()] == [None, "2 more within 60 s"]


class UnreliableRecorder:
    """A recorder whose database can be unavailable."""

    def __init__(self) -> None:
        self.entries: list[str | None] = []
        self.is_available = True

    async def record(self, _action: str, _outcome: str, *, subject: str | None, **_fields: Any) -> None:
        await asyncio.sleep(0)
        if not self.is_available:
            raise DatabaseUnavailable
        self.entries.append(subject)


PRINCIPAL = Principal(1, "vi", (), 7)
KEY = ConfigKey("acme", TYPE)


async def test_a_denial_that_could_not_be_stored_is_an_error_and_the_next_one_is_stored() -> None:
    recorder = UnreliableRecorder()
    recorded = DenialRecorder(recorder)  # type: ignore[arg-type]
    recorder.is_available = False
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await recorded.record("read", principal=PRINCIPAL, key=KEY)
    recorder.is_available = True
    await recorded.record("read", principal=PRINCIPAL, key=KEY)
    assert recorder.entries == [None]


async def test_numbers_wait_during_an_outage_and_a_new_minute_begins_with_an_entry() -> None:
    recorder, now = UnreliableRecorder(), 1_000.0
    recorded = DenialRecorder(recorder, timer=lambda: now)  # type: ignore[arg-type]
    for _ in range(3):
        await recorded.record("read", principal=PRINCIPAL, key=KEY)
    await recorded.flush()
    assert recorder.entries == [None]
    now += WINDOW_SECONDS
    recorder.is_available = False
    await recorded.flush()
    recorder.is_available = True
    await recorded.record("read", principal=PRINCIPAL, key=KEY)
    await recorded.flush()
    await recorded.flush()
    assert recorder.entries == [None, None, "2 more within 60 s"]


async def test_a_worker_stores_the_numbers_of_ended_minutes(denied: Denied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(denials, "WINDOW_SECONDS", 0.05)
    task = asyncio.create_task(denied.app.process.audit.denials.run())
    try:
        async with asyncio.timeout(60):
            while not any(subject for _, _, subject in await denied.list_entries()):
                await asyncio.gather(*[denied.read("globex") for _ in range(5)])
    finally:
        task.cancel()


async def test_reads_of_a_damaged_old_version_add_one_entry(app: RunningApp) -> None:
    admin = await app.create_token("root", *ADMIN)
    await app.save(admin, {"n": 1})
    await app.save(admin, {"n": 2})
    engine: Any = app.process.stores.database._host_engine
    await engine.execute("/* test.damage */ UPDATE changes SET body = $1 WHERE version = 1", bytes(64))
    for _ in range(5):
        reply = await app.request("GET", f"/config/versions/1?tenant=acme&integration_type={TYPE}", token=admin)
        assert reply.json()["code"] == "integrity-error", reply.text
    rows = [row async for table, row in app.process.stores.database.dump() if table == "audit"]
    assert len([row for row in rows if row[3] == "integrity-error"]) == 1


def test_the_end_of_a_service_stores_the_numbers(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        admin = service.add_admin()
        with service.client(admin) as http:
            grants = [{"role": "viewer", "tenant": "acme", "integration_type": "*"}]
            http.post("/user", json={"login": "vi", "grants": grants}).raise_for_status()
            added = http.post("/tokens", json={"label": "vi", "login": "vi"}).raise_for_status().json()
        with service.client(added["token"]) as http:
            for _ in range(30):
                assert http.get("/config", params={"tenant": "globex", "integration_type": TYPE}).status_code == 404
        assert service.stop() == 0
        found = apsw.Connection(str(service.data / "confide.db")).execute(
            "SELECT subject FROM audit WHERE outcome = 'denied' ORDER BY id"
        )
        # A minute may have ended during the requests.
        subjects = [subject for (subject,) in found]
    counted = sum(1 if subject is None else int(subject.split()[0]) for subject in subjects)
    assert (subjects[0], counted) == (None, 30)
    assert len(subjects) <= 4
