"""Retention erases old versions and old rows of the change log, and never a current version."""

from __future__ import annotations

from typing import Any

import pytest

from confide.clock import read_wall_clock
from confide.configs import retention
from confide.configs.retention import Retention
from confide.names import ConfigKey
from support.app import ADMIN, TYPE, RunningApp

KEY = ConfigKey("acme", TYPE)
DAY = 24 * 60 * 60 * 1_000_000


@pytest.fixture
async def admin(app: RunningApp) -> str:
    return await app.create_token("root", *ADMIN)


def build_retention(app: RunningApp, *, days: int = 365, later_days: int = 0) -> Retention:
    """Build retention with a clock that is some days ahead."""
    ahead = later_days * DAY
    store, types = app.process.stores.retention, app.process.types.active
    return Retention(store, types, clock=lambda: read_wall_clock() + ahead, log_days=days)


async def list_versions(app: RunningApp, token: str) -> list[Any]:
    params = {"tenant": "acme", "integration_type": TYPE}
    found: list[Any] = (await app.request("GET", "/config/versions", token=token, params=params)).json()["versions"]
    return found


async def test_versions_beyond_the_kept_number_are_pruned(app: RunningApp, admin: str) -> None:
    for n in range(7):
        await app.save(admin, {"n": n})
    retention_job = build_retention(app)
    assert await retention_job.prune() == 0, "the default is 100 versions"
    await app.request("PUT", f"/integration-types/{TYPE}", token=admin, json={"keep": 3})
    assert await retention_job.prune() == 4
    assert await retention_job.prune() == 0
    assert [(one["version"], one["pruned"]) for one in await list_versions(app, admin)] == [
        (7, False), (6, False), (5, False), (4, True), (3, True), (2, True), (1, True),
    ]  # fmt: skip
    params = {"tenant": "acme", "integration_type": TYPE}
    gone = await app.request("GET", "/config/versions/4", token=admin, params=params)
    assert (gone.status_code, gone.json()["code"]) == (410, "version-pruned")
    back = await app.request("POST", "/config/rollback", token=admin, json={**params, "version": 4})
    assert (back.status_code, back.json()["code"]) == (410, "version-pruned")
    assert (await app.read(admin)).json()["configuration"] == {"n": 6}
    assert (await app.request("GET", "/config/versions/5", token=admin, params=params)).status_code == 200


async def test_many_old_versions_are_pruned_in_batches(
    app: RunningApp, admin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.request("PUT", f"/integration-types/{TYPE}", token=admin, json={"keep": 2})
    for n in range(9):
        await app.save(admin, {"n": n})
    erased: list[list[int]] = []
    erase = app.process.stores.retention.prune

    async def prune_and_record(key: ConfigKey, **bounds: int) -> list[int]:
        erased.append(await erase(key, **bounds))
        return erased[-1]

    monkeypatch.setattr(app.process.stores.retention, "prune", prune_and_record)
    monkeypatch.setattr(retention, "BATCH_SIZE", 3)
    assert await build_retention(app).prune() == 7
    assert erased == [[1, 2, 3], [4, 5, 6], [7]]


async def test_the_only_kept_version_is_the_current_one(app: RunningApp, admin: str) -> None:
    await app.request("PUT", f"/integration-types/{TYPE}", token=admin, json={"keep": 1})
    for n in range(3):
        await app.save(admin, {"n": n})
    await build_retention(app).prune()
    assert (await app.read(admin, headers={"Cache-Control": "no-cache"})).json()["configuration"] == {"n": 2}


async def test_old_versions_are_erased_after_a_tenant_was_destroyed(app: RunningApp, admin: str) -> None:
    """The row of a destroyed tenant has no integration type and no version."""
    await app.save(admin, {"n": 0}, tenant="aaa")
    destroyed = await app.request("DELETE", "/tenants/aaa", token=admin, params={"confirm": "aaa"})
    assert destroyed.status_code == 200
    await app.request("PUT", f"/integration-types/{TYPE}", token=admin, json={"keep": 2})
    for n in range(3):
        await app.save(admin, {"n": n})
    assert await build_retention(app).prune() == 1
    assert [one["pruned"] for one in await list_versions(app, admin)] == [False, False, True]


async def test_old_rows_are_trimmed_except_the_latest_of_each_config(app: RunningApp, admin: str) -> None:
    for n in range(3):
        await app.save(admin, {"n": n})
    await app.save(admin, {"n": 1}, tenant="retired")
    await app.request("DELETE", "/config", token=admin, params={"tenant": "retired", "integration_type": TYPE})
    start = (await app.request("GET", "/watch", token=admin, params={"wait": "0"})).json()["position"]
    retention_job = build_retention(app, days=10, later_days=11)
    await retention_job.trim()
    assert [one["version"] for one in await list_versions(app, admin)] == [3]
    assert (await app.read(admin, headers={"Cache-Control": "no-cache"})).json()["configuration"] == {"n": 2}
    assert (await app.save(admin, {"n": 9})).json()["version"] == 4
    assert (await app.save(admin, {"n": 9}, tenant="retired")).json()["version"] == 3
    for after, status in (("0", 410), (start, 200)):
        reply = await app.request("GET", "/watch", token=admin, params={"wait": "0", "after": after})
        assert reply.status_code == status, reply.text
    rows = [row async for table, row in app.process.stores.database.dump() if table == "changes"]
    assert len(rows) == 4


async def test_rows_within_the_retention_time_are_kept(app: RunningApp, admin: str) -> None:
    for n in range(3):
        await app.save(admin, {"n": n})
    await build_retention(app, days=10, later_days=9).trim()
    assert len(await list_versions(app, admin)) == 3
    assert (await app.request("GET", "/watch", token=admin, params={"wait": "0", "after": "0"})).status_code == 200


async def test_one_process_claims_a_background_job(app: RunningApp, admin: str) -> None:
    await app.request("PUT", f"/integration-types/{TYPE}", token=admin, json={"keep": 1})
    await app.save(admin, {"n": 1})
    await app.save(admin, {"n": 2})
    store, at = app.process.stores.retention, read_wall_clock()
    assert [await store.claim_job("prune", now=at, until=at + 10) for _ in range(3)] == [True, False, False]
    assert await store.claim_job("prune", now=at + 10, until=at + 20)
    await build_retention(app, later_days=1).run_due_jobs()
    assert [one["pruned"] for one in await list_versions(app, admin)] == [False, True]
