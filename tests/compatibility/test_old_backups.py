"""Restore the backups that earlier releases wrote: there is one for each earlier schema."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from confide.database.errors import UnsignedStore
from confide.database.schema import get_schema_number
from support.app import RunningApp, build_settings, start_app
from support.processes import run_confide

HERE = Path(__file__).parent
# Release 0.1.0 is the last release.
BACKUPS = {1: HERE / "release_0_1_0", 2: HERE / "store_before", 3: HERE / "schema_3", 4: HERE / "schema_4"}
# Backups are signed since this schema.
SIGNED_SCHEMA = 4
PARAMS = {"tenant": "acme", "integration_type": "crm"}


def read_schema_number(backup: Path) -> int:
    with gzip.open(backup) as file:
        return int(json.loads(file.readline())["schema"])


def restore(folder: Path, tmp_path: Path, database: str | None, *, is_signed: bool = True) -> Path:
    """Restore the backup in `folder` into an empty database, and sign it. Return the data folder."""
    data = tmp_path / "confide-data"
    data.mkdir()
    shutil.copyfile(folder / "master.keys", data / "master.keys")
    (data / "master.keys").chmod(0o600)
    env = {"CONFIDE_UNSAFE_DURABILITY": "true", **({} if database is None else {"CONFIDE_DATABASE": database})}
    done = run_confide("restore", str(folder / "backup"), cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "root" in done.stdout
    is_old = read_schema_number(folder / "backup") < SIGNED_SCHEMA
    assert ("is not signed" in done.stdout) == is_old
    if is_old and is_signed:
        done = run_confide("store", "sign", "--reviewed", cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
    return data


def test_there_is_a_backup_of_each_earlier_schema() -> None:
    found = {number: read_schema_number(folder / "backup") for number, folder in BACKUPS.items()}
    assert found == {number: number for number in range(1, get_schema_number("sqlite"))}


@pytest.mark.parametrize("number", BACKUPS)
async def test_a_backup_of_an_earlier_schema_is_restored_and_can_be_saved_to(
    tmp_path: Path, database: str | None, number: int
) -> None:
    data = restore(BACKUPS[number], tmp_path, database)
    async with start_app(build_settings(data, database)) as app:
        login = {"login": "root", "password": "correct horse battery"}
        admin = (await app.request("POST", "/login", json=login)).json()["token"]
        found = (await app.read(admin, type_="crm")).json()["configuration"]
        saved = await app.save(admin, {"port": 9443}, type_="crm")
        assert saved.status_code == 200, saved.text
        assert (await app.read(admin, type_="crm")).json()["configuration"] == {**found, "port": 9443}
        assert (await app.request("GET", "/audit/verify", token=admin)).json()["ok"]


async def test_the_backup_of_the_last_release_has_all_that_it_stored(tmp_path: Path, database: str | None) -> None:
    expected: dict[str, Any] = json.loads((BACKUPS[1] / "expected.json").read_text())
    async with start_app(build_settings(restore(BACKUPS[1], tmp_path, database), database)) as app:
        robot = expected["robot_token"]
        assert (await app.read(robot, type_="crm")).json()["configuration"] == expected["configuration"]
        viewer = await log_in(app, "vera", "vera's long password")
        masked = (await app.read(viewer, type_="crm")).json()["configuration"]
        assert masked == {**expected["configuration"], "password": "********"}
        admin = await log_in(app, "root", "correct horse battery")
        first = (await app.request("GET", "/config/versions/1", token=admin, params=PARAMS)).json()
        assert first["configuration"] == {"host": "crm.acme.example", "password": "of release 0.1.0"}
        deleted = await app.read(admin, tenant="globex", type_="billing")
        assert deleted.status_code == 404


async def log_in(app: RunningApp, login: str, password: str) -> str:
    reply = await app.request("POST", "/login", json={"login": login, "password": password})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["token"])


async def test_a_service_refuses_an_unsigned_backup_until_an_operator_reviewed_it(
    tmp_path: Path, database: str | None
) -> None:
    data = restore(BACKUPS[3], tmp_path, database, is_signed=False)
    with pytest.raises(UnsignedStore, match="store sign"):
        async with start_app(build_settings(data, database)):
            pass
