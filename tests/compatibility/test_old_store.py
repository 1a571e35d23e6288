"""Open a database and restore a backup that the code before the move wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.app import RunningApp, build_settings, start_app
from support.processes import run_confide

BEFORE = Path(__file__).with_name("store_before")

Json = Any


@pytest.fixture
def expected() -> Json:
    """Return the responses of the code before the move."""
    return json.loads((BEFORE / "expected.json").read_text())


@pytest.fixture(params=["opened", "restored"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a data folder: a copy of the old store, or today's restore of the old backup."""
    folder = tmp_path / "confide-data"
    folder.mkdir()
    names = ("confide.db", "checkpoints.jsonl", "master.keys") if request.param == "opened" else ("master.keys",)
    for name in names:
        shutil.copyfile(BEFORE / name, folder / name)
        (folder / name).chmod(0o600)
    if request.param == "restored":
        done = run_confide("restore", str(BEFORE / "backup"), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        done = run_confide("store", "sign", "--reviewed", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
async def app(data: Path) -> AsyncIterator[RunningApp]:
    async with start_app(build_settings(data, None)) as built:
        yield built


async def login(app: RunningApp, name: str, password: str) -> str:
    reply = await app.request("POST", "/login", json={"login": name, "password": password})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["token"])


async def test_configs_and_their_history_read_as_before(app: RunningApp, expected: Json) -> None:
    admin = await login(app, "root", "correct horse battery")
    for place, config in expected["configs"].items():
        tenant, type_ = place.split("/")
        reply = await app.read(admin, tenant=tenant, type_=type_)
        assert reply.json() == config
    params = {"tenant": "acme", "integration_type": "crm"}
    first = await app.request("GET", "/config/versions/1", token=admin, params=params)
    assert first.json()["configuration"] == {"host": "crm.acme.example", "password": "before-the-move"}
    deleted = await app.read(admin, tenant="globex", type_="billing")
    assert deleted.status_code == 404


async def test_users_grants_and_schemas_work_as_before(app: RunningApp, expected: Json) -> None:
    viewer = await login(app, "vera", "vera's long password")
    reply = await app.read(viewer, type_="crm")
    assert reply.json()["configuration"] == {"host": "crm.acme.example", "password": "********", "port": 8443}
    assert (await app.read(viewer, tenant="globex", type_="crm")).status_code in {403, 404}
    admin = await login(app, "root", "correct horse battery")
    wrong = await app.save(admin, {"port": "not a number"}, type_="crm")
    assert wrong.json()["version"] == 3
    assert [warning["pointer"] for warning in wrong.json()["warnings"]] == ["/configuration/port"]


async def test_the_audit_hash_chain_verifies_and_goes_on(app: RunningApp, expected: Json) -> None:
    admin = await login(app, "root", "correct horse battery")
    assert expected["verify"]["checked"] > 10
    verified = (await app.request("GET", "/audit/verify", token=admin)).json()
    assert verified["ok"]
    assert verified["first_bad"] is None
    assert verified["checked"] >= expected["verify"]["checked"]
    numbers = {entry["number"]: entry for entry in expected["audit"]["entries"]}
    listed = (await app.request("GET", "/audit", token=admin, params={"limit": "100"})).json()["entries"]
    kept = {entry["number"]: entry for entry in listed if entry["number"] in numbers}
    assert {number: entry["action"] for number, entry in kept.items()} == {
        number: entry["action"] for number, entry in numbers.items()
    }


async def test_service_tokens_work_as_before(app: RunningApp, expected: Json) -> None:
    reply = await app.read(expected["robot_token"], type_="crm")
    assert reply.status_code == 200
