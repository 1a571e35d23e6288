"""An altered row cannot be decrypted, affects only its config, and is reported."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from confide.configs import store as config_store
from confide.database.engine import Script, Statement
from confide.names import ConfigKey
from confide.server.settings import Settings
from support.app import ADMIN, TYPE, RunningApp, build_settings, start_app
from support.canaries import make_canary
from support.postgres import PostgresServer
from support.waiting import wait_until_async

NO_CACHE = {"Cache-Control": "no-cache"}
TAMPERED: dict[str, tuple[str, str, Callable[[bytes, bytes], bytes]]] = {
    "a flipped bit": ("acme", "a", lambda body, _: body[:-1] + bytes([body[-1] ^ 1])),
    "another row's body": ("acme", "a", lambda _, other: other),
    "a cut body": ("acme", "a", lambda body, _: body[:20]),
    "an empty body": ("acme", "a", lambda _, __: b""),
    "an unknown key ID": ("acme", "a", lambda body, _: body[:1] + b"\0" * 16 + body[17:]),
    "another format": ("acme", "a", lambda body, _: b"\x02" + body[1:]),
}


async def execute(app: RunningApp, sql: str, *args: Any) -> list[Any]:
    def work() -> Any:
        return (yield Statement(sql, args))

    engine: Any = app.process.stores.database._host_engine
    return list(await engine.transact(work()))


async def read_body(app: RunningApp, tenant: str, type_: str, version: int = 1) -> bytes:
    sql = "SELECT body FROM changes WHERE tenant = $1 AND integration_type = $2 AND version = $3"
    return bytes((await execute(app, sql, tenant, type_, version))[0][0])


async def write_body(app: RunningApp, body: bytes, tenant: str, type_: str, version: int = 1) -> None:
    sql = "UPDATE changes SET body = $1 WHERE tenant = $2 AND integration_type = $3 AND version = $4"
    await execute(app, sql, body, tenant, type_, version)


@pytest.mark.parametrize("tampering", TAMPERED)
async def test_an_altered_row_cannot_be_decrypted_and_affects_no_other(
    app: RunningApp, tampering: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = await app.create_token("root", *ADMIN)
    secret = make_canary("value")
    for type_ in ("a", "b"):
        await app.save(token, {"password": secret, "type": type_}, type_=type_)
    tenant, type_, change = TAMPERED[tampering]
    body = change(await read_body(app, "acme", "a"), await read_body(app, "acme", "b"))
    await write_body(app, body, tenant, type_)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            reply = await app.read(token, type_="a", headers=NO_CACHE)
            assert (reply.status_code, reply.json()["code"]) == (503, "integrity-error")
            assert reply.headers["retry-after"]
    assert (await app.read(token, type_="b")).json()["configuration"]["type"] == "b"
    listed = (await app.request("GET", "/configs", token=token)).json()["configs"]
    assert [line["integration_type"] for line in listed] == ["a", "b"]
    # It is reported once, not at each read: in the log, the audit log and the health check.
    assert [record.message for record in caplog.records if "config_undecryptable" in record.message] == [
        "config_undecryptable tenant=acme integration_type=a version=1"
    ]
    rows = [row async for table, row in app.process.stores.database.dump() if table == "audit"]
    assert [(row[2], row[3]) for row in rows].count(("open", "integrity-error")) == 1
    health = (await app.request("GET", "/health/ready")).json()
    assert (health["status"], health["reasons"][-1]) == ("degraded", "integrity-error")
    # It cannot be merged into, but it can be replaced.
    assert (await app.save(token, {"x": 1}, type_="a")).status_code == 503
    document = {"tenant": "acme", "integration_type": "a", "configuration": {"x": 1}}
    assert (await app.request("PUT", "/config", token=token, json=document)).json()["version"] == 2
    assert (await app.read(token, type_="a")).json()["configuration"] == {"x": 1}
    health = (await app.request("GET", "/health/ready")).json()
    assert "integrity-error" not in health["reasons"]


@pytest.mark.parametrize("tampering", TAMPERED)
async def test_an_altered_older_version_is_reported(app: RunningApp, tampering: str) -> None:
    token = await app.create_token("root", *ADMIN)
    for number in range(2):
        await app.save(token, {"number": number}, type_="a")
        await app.save(token, {"number": number}, type_="b")
    change = TAMPERED[tampering][2]
    await write_body(app, change(await read_body(app, "acme", "a"), await read_body(app, "acme", "b")), "acme", "a")
    params = {"tenant": "acme", "integration_type": "a"}
    version = await app.request("GET", "/config/versions/1", token=token, params=params)
    diff = await app.request("GET", "/config/diff", token=token, params={**params, "from": "1", "to": "2"})
    back = await app.request("POST", "/config/rollback", token=token, json={**params, "version": 1})
    for reply in (version, diff, back):
        assert (reply.status_code, reply.json()["code"]) == (503, "integrity-error")
    rows = [row async for table, row in app.process.stores.database.dump() if table == "audit"]
    assert [(row[2], row[3]) for row in rows].count(("open", "integrity-error")) == 1
    assert (await app.read(token, type_="a", headers=NO_CACHE)).json()["configuration"] == {"number": 1}


@pytest.mark.parametrize("place", ["tenant", "integration_type", "version"])
async def test_a_body_moved_to_another_row_cannot_be_decrypted(app: RunningApp, place: str) -> None:
    token = await app.create_token("root", *ADMIN)
    await app.save(token, {"v": 1}, type_="a")
    await app.save(token, {"v": 2}, type_="a")
    old, new = await read_body(app, "acme", "a"), await read_body(app, "acme", "a", 2)
    if place == "version":  # an old body replaces the current one
        await write_body(app, old, "acme", "a", 2)
        assert (await app.read(token, type_="a", headers=NO_CACHE)).json()["code"] == "integrity-error"
        return
    tenant, type_ = ("globex", "a") if place == "tenant" else ("acme", "c")
    await app.save(token, {"v": 3}, tenant=tenant, type_=type_)
    await write_body(app, new, tenant, type_)
    moved = await app.read(token, tenant=tenant, type_=type_, headers=NO_CACHE)
    assert moved.json()["code"] == "integrity-error"
    assert (await app.read(token, type_="a")).json()["configuration"] == {"v": 2}


async def test_the_database_holds_no_saved_value_in_plaintext(app: RunningApp) -> None:
    token = await app.create_token("root", *ADMIN)
    secret = make_canary("value")
    await app.save(token, {"password": secret, secret: 1})
    async for _, row in app.process.stores.database.dump():
        for value in row:
            assert secret not in (value.decode("latin-1") if isinstance(value, bytes) else str(value))


async def remove_newest_version(app: RunningApp, token: str) -> None:
    """Save two versions, wait until the change feed covers them, and remove the second one from the database."""
    for number in (1, 2):
        assert (await app.save(token, {"n": number})).status_code == 200
    await app.save(token, {"n": 1}, tenant="globex")  # the end of the change log stays
    memory = app.process.caching.memory
    known = app.process.reads.cache.find_known_version
    key = ConfigKey("acme", TYPE)
    await wait_until_async(lambda: known(key).in_feed == 2 and memory.peek(key), "the change feed has both versions")
    await execute(app, "DELETE FROM changes WHERE version = 2")


async def test_a_version_that_goes_back_is_an_integrity_error(
    app: RunningApp, caplog: pytest.LogCaptureFixture
) -> None:
    token = await app.create_token("root", *ADMIN)
    await remove_newest_version(app, token)
    for _ in range(2):
        read = await app.read(token, headers={"Cache-Control": "no-cache"})
        assert (read.status_code, read.json()["code"]) == (503, "integrity-error")
    saved = await app.save(token, {"n": 3})
    assert (saved.status_code, saved.json()["code"]) == (503, "integrity-error")
    assert "integrity-error" in (await app.request("GET", "/health/ready")).json()["reasons"]
    assert [record.message for record in caplog.records if "version_missing" in record.message] == [
        f"config_version_missing tenant=acme integration_type={TYPE} version=2 found_version=1"
    ]


async def test_a_version_that_goes_back_in_another_epoch_is_read(app: RunningApp) -> None:
    token = await app.create_token("root", *ADMIN)
    await remove_newest_version(app, token)
    await execute(app, "UPDATE store SET epoch = 'f00df00df00df00d', epoch_number = 2")
    await wait_until_async(lambda: app.process.stores.epoch.value.number == 2, "the change feed has the epoch")
    read = await app.read(token, headers={"Cache-Control": "no-cache"})
    assert (read.status_code, read.headers["etag"]) == (200, '"1-f00df00d"')


async def test_a_version_that_the_change_feed_has_not_covered_can_be_lost_without_an_integrity_error(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await app.create_token("root", *ADMIN)
    await remove_newest_version(app, token)
    memory = app.process.caching.memory
    monkeypatch.setattr(memory, "is_covered", lambda _: False)
    entry: Any = memory.peek(ConfigKey("acme", TYPE))
    entry.newest_in_feed = 0
    read = await app.read(token, headers={"Cache-Control": "no-cache"})
    assert (read.status_code, read.json()["code"]) == (503, "store-unavailable")
    memory.drop_uncovered()
    assert (await app.read(token, headers={"Cache-Control": "no-cache"})).headers["etag"] == '"1"'


async def test_the_number_of_a_removed_version_is_not_given_again(settings: Settings) -> None:
    async with start_app(settings) as app:
        token = await app.create_token("root", *ADMIN)
        for number in range(1, 4):
            assert (await app.save(token, {"n": number})).json()["version"] == number
        await execute(app, "DELETE FROM changes WHERE version = 3")
    # This process has never seen the removed version.
    async with start_app(settings) as app:
        for headers in ({}, {"Idempotency-Key": "again"}):
            reply = await app.save(token, {"n": 4}, headers=headers)
            assert (reply.status_code, reply.json()["code"]) == (503, "integrity-error"), reply.text
        keys = [*({"n": number} for number in range(5, 10))]
        many = await asyncio.gather(
            *(app.save(token, one) for one in keys), *(app.save(token, one, tenant=f"globex{one['n']}") for one in keys)
        )
        assert [reply.status_code for reply in many] == [503] * 5 + [200] * 5
        assert "integrity-error" in (await app.request("GET", "/health/ready")).json()["reasons"]


async def take_row(app: RunningApp, version: int) -> tuple[Any, ...]:
    """Delete the row of a version without Confide, and return it."""
    where = "WHERE tenant = 'acme' AND version = $1"
    (row,) = await execute(app, f"SELECT * FROM changes {where}", version)
    await execute(app, f"DELETE FROM changes {where}", version)
    return tuple(row)


async def put_row_back(app: RunningApp, row: tuple[Any, ...]) -> None:
    values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    engine: Any = app.process.stores.database._host_engine
    overriding = "OVERRIDING SYSTEM VALUE " if "postgresql" in type(engine).__module__ else ""
    await execute(app, f"INSERT INTO changes {overriding}VALUES ({values})", *row)


@pytest.mark.parametrize("versions", [1, 2])
async def test_a_config_whose_newest_row_was_deleted_is_not_served_from_memory_either(
    app: RunningApp, versions: int, caplog: pytest.LogCaptureFixture
) -> None:
    token = await app.create_token("root", *ADMIN)
    for number in range(versions):
        assert (await app.save(token, {"n": number})).status_code == 200
    await app.save(token, {"n": 1}, tenant="globex")  # the end of the change log stays
    key, known = ConfigKey("acme", TYPE), app.process.reads.cache.find_known_version
    await wait_until_async(lambda: known(key).in_feed == versions, "the change feed has all versions")
    row = await take_row(app, versions)
    assert (await app.read(token)).status_code == 200  # from memory: nothing has noticed yet
    reader = app.process.reads.reader
    queries = reader.database_queries
    for headers in (NO_CACHE, {}, {}, {"Config-Min-Version": str(versions)}):
        read = await app.read(token, headers=headers)
        assert (read.status_code, read.json()["code"]) == (503, "integrity-error")
    assert reader.database_queries - queries == 4
    saved = await app.save(token, {"n": 9})
    assert (saved.status_code, saved.json()["code"]) == (503, "integrity-error")
    assert (await app.read(token, tenant="globex")).status_code == 200
    assert len([one for one in caplog.records if "config_version_missing" in one.message]) == 1
    await put_row_back(app, row)
    assert (await app.read(token)).json()["configuration"] == {"n": versions - 1}
    assert "integrity-error" not in (await app.request("GET", "/health/ready")).json().get("reasons", [])


@pytest.mark.parametrize("name", ["POSTGRESQL_APPEND", "POSTGRESQL_APPEND_MANY"])
async def test_a_save_finds_audit_entries_by_their_index_however_many_there_are(
    postgres: PostgresServer, tmp_path: Path, name: str
) -> None:
    sql: str = getattr(config_store, name)
    count = max(int(number) for number in re.findall(r"\$([0-9]+)", sql))
    async with start_app(build_settings(tmp_path / "data", postgres.new_database())) as app:

        def explain() -> Any:
            # As for a statement that was prepared when the table was small, and is used when it is large.
            yield Script("SET LOCAL plan_cache_mode = force_generic_plan")
            yield Script(f"PREPARE appended AS {sql}")
            return (yield Statement(f"EXPLAIN EXECUTE appended ({', '.join(['NULL'] * count)})"))

        engine: Any = app.process.stores.database._host_engine
        plan = "\n".join(row[0] for row in await engine.transact(explain()))
    assert "using audit_config on audit" in plan
    assert "Seq Scan on audit" not in plan
