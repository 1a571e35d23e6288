"""Retention: older versions lose what they held, the log loses old rows, and what is current is never touched."""

from __future__ import annotations

from typing import Any

import pytest

from confide.clock import now
from confide.configs import retention
from confide.configs.retention import Retention
from confide.names import Key
from support.app import ADMIN, TYPE, RunningApp

KEY = Key("acme", TYPE)
DAY = 24 * 60 * 60 * 1_000_000


@pytest.fixture
async def admin(app: RunningApp) -> str:
    return await app.token("root", *ADMIN)


def retention_of(app: RunningApp, *, days: int = 365, later_days: int = 0) -> Retention:
    """A retention whose clock is ahead."""
    ahead = later_days * DAY
    store, types = app.process.stores.retention, app.process.types.active
    return Retention(store, types, clock=lambda: now() + ahead, log_days=days)


async def history(app: RunningApp, token: str) -> list[Any]:
    params = {"tenant": "acme", "integration_type": TYPE}
    found: list[Any] = (await app.ask("GET", "/config/versions", token=token, params=params)).json()["versions"]
    return found


async def test_only_so_many_versions_keep_what_they_held(app: RunningApp, admin: str) -> None:
    for n in range(7):
        await app.save(admin, {"n": n})
    keeper = retention_of(app)
    assert await keeper.prune() == 0, "a hundred unless the type says otherwise"
    await app.ask("PUT", f"/integration-types/{TYPE}", token=admin, json={"keep": 3})
    assert await keeper.prune() == 4
    assert await keeper.prune() == 0
    assert [(one["version"], one["pruned"]) for one in await history(app, admin)] == [
        (7, False), (6, False), (5, False), (4, True), (3, True), (2, True), (1, True),
    ]  # fmt: skip
    params = {"tenant": "acme", "integration_type": TYPE}
    gone = await app.ask("GET", "/config/versions/4", token=admin, params=params)
    assert (gone.status_code, gone.json()["code"]) == (410, "version-pruned")
    back = await app.ask("POST", "/config/rollback", token=admin, json={**params, "version": 4})
    assert (back.status_code, back.json()["code"]) == (410, "version-pruned")
    assert (await app.read(admin)).json()["configuration"] == {"n": 6}
    assert (await app.ask("GET", "/config/versions/5", token=admin, params=params)).status_code == 200


async def test_many_old_versions_are_erased_a_few_at_a_time(
    app: RunningApp, admin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.ask("PUT", f"/integration-types/{TYPE}", token=admin, json={"keep": 2})
    for n in range(9):
        await app.save(admin, {"n": n})
    erased: list[list[int]] = []
    erase = app.process.stores.retention.prune

    async def prune_and_record(key: Key, **bounds: int) -> list[int]:
        erased.append(await erase(key, **bounds))
        return erased[-1]

    monkeypatch.setattr(app.process.stores.retention, "prune", prune_and_record)
    monkeypatch.setattr(retention, "BATCH_SIZE", 3)
    assert await retention_of(app).prune() == 7
    assert erased == [[1, 2, 3], [4, 5, 6], [7]]


async def test_one_kept_version_is_the_current_one(app: RunningApp, admin: str) -> None:
    await app.ask("PUT", f"/integration-types/{TYPE}", token=admin, json={"keep": 1})
    for n in range(3):
        await app.save(admin, {"n": n})
    await retention_of(app).prune()
    assert (await app.read(admin, headers={"Cache-Control": "no-cache"})).json()["configuration"] == {"n": 2}


async def test_old_versions_are_erased_after_a_tenant_was_destroyed(app: RunningApp, admin: str) -> None:
    """The row of a destroyed tenant has no integration type and no version."""
    await app.save(admin, {"n": 0}, tenant="aaa")
    destroyed = await app.request("DELETE", "/tenants/aaa", token=admin, params={"confirm": "aaa"})
    assert destroyed.status_code == 200
    await app.request("PUT", f"/integration-types/{TYPE}", token=admin, json={"keep": 2})
    for n in range(3):
        await app.save(admin, {"n": n})
    assert await retention_of(app).prune() == 1
    assert [one["pruned"] for one in await history(app, admin)] == [False, False, True]


async def test_old_rows_of_the_log_go_but_a_configs_latest_and_numbers_go_on(app: RunningApp, admin: str) -> None:
    for n in range(3):
        await app.save(admin, {"n": n})
    await app.save(admin, {"n": 1}, tenant="retired")
    await app.ask("DELETE", "/config", token=admin, params={"tenant": "retired", "integration_type": TYPE})
    begun = (await app.ask("GET", "/watch", token=admin, params={"wait": "0"})).json()["position"]
    keeper = retention_of(app, days=10, later_days=11)
    await keeper.trim()
    assert [one["version"] for one in await history(app, admin)] == [3]
    assert (await app.read(admin, headers={"Cache-Control": "no-cache"})).json()["configuration"] == {"n": 2}
    assert (await app.save(admin, {"n": 9})).json()["version"] == 4
    assert (await app.save(admin, {"n": 9}, tenant="retired")).json()["version"] == 3
    for after, status in (("0", 410), (begun, 200)):
        reply = await app.ask("GET", "/watch", token=admin, params={"wait": "0", "after": after})
        assert reply.status_code == status, reply.text
    rows = [row async for table, row in app.process.stores.database.dump() if table == "changes"]
    assert len(rows) == 4


async def test_nothing_goes_before_its_time(app: RunningApp, admin: str) -> None:
    for n in range(3):
        await app.save(admin, {"n": n})
    await retention_of(app, days=10, later_days=9).trim()
    assert len(await history(app, admin)) == 3
    assert (await app.ask("GET", "/watch", token=admin, params={"wait": "0", "after": "0"})).status_code == 200


async def test_a_chore_is_one_processs_turn(app: RunningApp, admin: str) -> None:
    await app.ask("PUT", f"/integration-types/{TYPE}", token=admin, json={"keep": 1})
    await app.save(admin, {"n": 1})
    await app.save(admin, {"n": 2})
    upkeep, at = app.process.stores.retention, now()
    assert [await upkeep.claim_job("prune", now=at, until=at + 10) for _ in range(3)] == [True, False, False]
    assert await upkeep.claim_job("prune", now=at + 10, until=at + 20)
    await retention_of(app, later_days=1).run_due_jobs()
    assert [one["pruned"] for one in await history(app, admin)] == [False, True]
