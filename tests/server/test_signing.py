"""An attacker who can write to the database gets no access by it: rows that decide about access are signed."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from confide.caching.stamps import EVERYTHING, SlotChange
from confide.crypto.model import WrappedKey
from confide.database.engine import Script, Transaction, statement
from confide.database.errors import UnsignedStore
from confide.database.signed_rows import SIGNED_TABLES, RowSigner, encode_row
from confide.database.signing import scan_rows
from confide.identity.errors import InvalidToken
from confide.identity.token_format import generate_token, hash_token
from confide.server.preparation import build_signing
from confide.server.settings import Settings
from confide.server.signing import SigningRecord, SigningRecordFile
from confide.server.wiring import run_alongside
from support.app import ADMIN, PASSWORD, TYPE, RunningApp, start_app
from support.waiting import wait_until_async

READER = (("reader", "acme", "*"),)


async def attack(app: RunningApp, sql: str, *args: Any) -> list[Any]:
    """Run a statement as an attacker who has the password of the database. The caches forget what it changed."""

    def run() -> Transaction[list[Any]]:
        yield SlotChange(EVERYTHING)
        return list((yield statement(sql, *args)))

    return await app.process.stores.engine.transact(run())


async def list_altered(app: RunningApp) -> list[str]:
    stores = app.process.stores
    return [str(row.name) async for row in scan_rows(stores.database.host_engine, stores.rows) if not row.is_valid]


async def read_health(app: RunningApp) -> list[str]:
    return list((await app.request("GET", "/health/ready")).json()["reasons"])


async def test_a_user_who_was_made_admin_in_the_database_gets_no_access(app: RunningApp) -> None:
    token = await app.create_token("mallory", *READER, token_grants=READER)
    assert (await app.read(token)).status_code == 404
    await attack(app, """UPDATE users SET grants = '[["admin", "*", "*"]]', is_admin = 1 WHERE login = 'mallory'""")
    assert (await app.read(token)).status_code == 401
    login = await app.request("POST", "/login", json={"login": "mallory", "password": PASSWORD})
    assert login.status_code == 401
    assert "rows-altered" in await read_health(app)


async def test_a_forged_token_of_an_admin_is_rejected(app: RunningApp) -> None:
    user_id = await app.add_user("root", *ADMIN)
    forged = generate_token()
    await attack(
        app,
        "INSERT INTO tokens (hash, user_id, is_session, label, made_at, expires_at, counter, mac)"
        " VALUES ($1, $2, 0, 'forged', 1, 9000000000000000, 1, $3)",
        hash_token(forged),
        user_id,
        b"m" * 32,
    )
    with pytest.raises(InvalidToken):
        await app.process.identity.tokens.authenticate(forged)


async def test_the_hash_of_a_known_token_in_the_row_of_an_admin_is_rejected(app: RunningApp) -> None:
    mine = await app.create_token("mallory", *READER, token_grants=READER)
    theirs = await app.create_token("root", *ADMIN, token_grants=ADMIN)
    await attack(app, "UPDATE tokens SET hash = $1 WHERE hash = $2", b"x" * 32, hash_token(mine))
    await attack(app, "UPDATE tokens SET hash = $1 WHERE hash = $2", hash_token(mine), hash_token(theirs))
    with pytest.raises(InvalidToken):
        await app.process.identity.tokens.authenticate(mine)


async def test_users_whose_logins_were_swapped_cannot_log_in(app: RunningApp) -> None:
    await app.add_user("root", *ADMIN)
    await app.add_user("mallory", *READER)
    for old, new in (("root", "temporary"), ("mallory", "root"), ("temporary", "mallory")):
        await attack(app, "UPDATE users SET login = $2 WHERE login = $1", old, new)
    for login in ("root", "mallory"):
        reply = await app.request("POST", "/login", json={"login": login, "password": PASSWORD})
        assert reply.status_code == 401
    assert await list_altered(app) == ["users 1", "users 2"]


async def test_the_first_user_cannot_be_added_again(app: RunningApp) -> None:
    first = {"login": "root", "password": PASSWORD}
    assert (await app.request("POST", "/user", json=first)).status_code == 200
    await attack(app, "UPDATE store SET first_user_at = NULL")
    for login in ("mallory", "root"):
        reply = await app.request("POST", "/user", json={"login": login, "password": PASSWORD})
        assert reply.status_code == 401
    assert (await app.process.stores.users.read("mallory")) is None


async def test_a_forged_integration_type_does_not_unmask_secrets(app: RunningApp) -> None:
    admin = await app.create_token("root", *ADMIN)
    schema = {"properties": {"pin": {"type": "string", "writeOnly": True}}}
    assert (
        await app.request("PUT", f"/integration-types/{TYPE}", token=admin, json={"schema": schema})
    ).status_code == 200
    await app.save(admin, {"pin": "canary-pin"})
    viewer = await app.create_token("vera", ("viewer", "acme", "*"))
    assert (await app.read(viewer)).json()["configuration"]["pin"] == "********"
    await attack(app, "UPDATE types SET schema = '{}'")
    reply = await app.read(viewer)
    assert (reply.status_code, reply.json()["code"]) == (503, "integrity-error")
    assert "canary-pin" not in reply.text


async def test_a_data_key_that_was_erased_in_the_database_does_not_count_as_destroyed(settings: Settings) -> None:
    async with start_app(settings) as app:
        admin = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        await app.save(admin, {"n": 1})
        ((wrapped,),) = await attack(app, "SELECT wrapped FROM keys WHERE tenant = 'acme'")
        await attack(app, "UPDATE keys SET wrapped = NULL WHERE tenant = 'acme'")
    async with start_app(settings) as app:
        reply = await app.read(admin)
        assert (reply.status_code, reply.json()["code"]) == (503, "integrity-error")
        # As after a restore of the database.
        await attack(app, "UPDATE keys SET wrapped = $1 WHERE tenant = 'acme'", wrapped)
        assert (await app.read(admin)).json()["configuration"] == {"n": 1}


async def test_a_destroyed_tenant_without_its_audit_entry_is_not_remembered_as_destroyed(settings: Settings) -> None:
    async with start_app(settings) as app:
        admin = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        for tenant in ("acme", "globex"):
            await app.save(admin, {"n": 1}, tenant=tenant)
            reply = await app.request("DELETE", f"/tenants/{tenant}?confirm={tenant}", token=admin)
            assert reply.status_code == 200, reply.text
        (settings.data / "destroyed.keys").unlink()
        await attack(app, "DELETE FROM audit WHERE tenant = 'globex' AND action = 'destroy tenant'")
        rows = await attack(app, "SELECT tenant, id FROM keys WHERE purpose = 'config'")
    ids = {tenant: bytes(key_id).hex() for tenant, key_id in rows}
    async with start_app(settings):
        remembered = (settings.data / "destroyed.keys").read_text().split()
    assert remembered == [ids["acme"]]


async def test_an_altered_row_is_recorded_in_the_audit_log(app: RunningApp) -> None:
    await app.add_user("mallory", *READER)
    await attack(app, "UPDATE users SET disabled = 1 WHERE login = 'mallory'")
    stores = app.process.stores
    async with run_alongside(app.process.audit.recorder.record_altered_rows(stores.rows.altered)):
        assert await stores.users.read("mallory") is None

        await wait_until_async(lambda: not stores.rows.altered.unrecorded, "the altered row is recorded")
    rows = await attack(app, "SELECT subject FROM audit WHERE action = 'verify row' AND outcome = 'altered'")
    assert [row[0] for row in rows] == ["users 1"]


@pytest.fixture
async def signed(settings: Settings) -> Settings:
    """Return the settings of a service that ran once and has an admin."""
    async with start_app(settings) as app:
        await app.add_user("root", *ADMIN)
    return settings


async def _wipe(app: RunningApp) -> None:
    for table in ("tokens", "users", "keys", "store", "audit_links", "audit", "checkpoints"):
        await attack(app, f"DELETE FROM {table}")


REMOVALS: dict[str, Callable[[RunningApp], Any]] = {
    "the key": lambda app: attack(app, "DELETE FROM keys WHERE purpose = 'rows'"),
    "all data": _wipe,
    "the row of the store": lambda app: attack(app, "DELETE FROM store"),
    "the first user": lambda app: attack(app, "UPDATE store SET first_user_at = NULL"),
    "the state of being signed": lambda app: attack(app, "UPDATE store SET signed_at = NULL"),
}


@pytest.mark.parametrize("removal", REMOVALS)
async def test_a_service_refuses_a_store_whose_signatures_are_gone(signed: Settings, removal: str) -> None:
    async with start_app(signed) as app:
        await REMOVALS[removal](app)
    with pytest.raises(UnsignedStore, match="store sign"):
        async with start_app(signed):
            pass


async def test_a_service_on_another_machine_refuses_the_store_as_well_once_it_has_seen_its_signatures(
    signed: Settings, tmp_path: Path
) -> None:
    record = signed.data / "signed-store.json"
    record.unlink()
    async with start_app(signed) as app:
        assert app.process.stores.rows.is_enforced
    assert record.stat().st_mode & 0o777 == 0o600


async def test_a_row_cannot_be_stored_without_a_signature(app: RunningApp) -> None:
    await app.create_token("root", *ADMIN)
    await app.process.stores.data_keys.add_if_none(WrappedKey(b"k" * 16, "config", "acme", b"m" * 16, b"w"), made_at=1)
    for table in ("users", "tokens", "keys", "store"):
        with pytest.raises(Exception, match=r"(?i)not.null"):
            await attack(app, f"UPDATE {table} SET mac = NULL")


async def test_rows_of_an_earlier_release_are_believed_until_the_store_is_signed(
    settings: Settings,
) -> None:
    async with start_app(settings) as app:
        await app.add_user("root", *ADMIN)
        await _unsign(app)
    async with start_app(settings) as app:
        assert not app.process.stores.rows.is_enforced
        admin = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        await attack(app, "UPDATE users SET mac = NULL, counter = NULL")
        assert (await app.request("GET", "/users", token=admin)).status_code == 200
        await attack(app, "UPDATE schema_migrations SET applied_at = 1")
        assert await build_signing(settings, app.process.stores).sign_when_due(app.process.audit.recorder)
        assert await list_altered(app) == []
        assert (await app.request("GET", "/users", token=admin)).status_code == 200
        with pytest.raises(Exception, match=r"(?i)not.null"):
            await attack(app, "UPDATE users SET mac = NULL")


async def _unsign(app: RunningApp) -> None:
    """Make the store one that a release without signatures wrote, and that was just migrated."""

    def run() -> Transaction[None]:
        for table in SIGNED_TABLES:
            yield Script(f"ALTER TABLE {table} ALTER COLUMN mac DROP NOT NULL")
            yield Script(f"ALTER TABLE {table} ALTER COLUMN counter DROP NOT NULL")
            yield Script(f"UPDATE {table} SET mac = NULL, counter = NULL")
        yield Script("UPDATE store SET signed_at = NULL")

    await app.process.stores.database.host_engine.transact_long(run())
    (app.settings.data / "signed-store.json").unlink()


async def test_an_existing_store_with_many_rows_is_signed_in_batches(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confide.database.signing.BATCH_SIZE", 3)
    async with start_app(settings) as app:
        for number in range(10):
            await app.add_user(f"user{number}", *READER)
        await _unsign(app)
        assert len(await list_altered(app)) > 10
        await asyncio.gather(
            build_signing(settings, app.process.stores).sign(app.process.audit.recorder, outcome="upgraded"),
            *(app.add_user(f"new{number}", *READER) for number in range(10)),
        )
        assert await list_altered(app) == []
        assert len(await app.process.stores.users.list_all()) == 20


def test_the_encoding_of_a_row_separates_its_columns() -> None:
    assert encode_row("users", {"a": "bc", "d": None}) == encode_row("users", {"a": "bc", "mac": b"m"})
    different = [
        encode_row("users", {"a": "b", "c": "d"}),
        encode_row("users", {"a": "bc", "d": ""}),
        encode_row("users", {"a": "bcd"}),
        encode_row("tokens", {"a": "bcd"}),
        encode_row("users", {"a": b"bcd"}),
        encode_row("users", {"a": 1}),
        encode_row("users", {"a": "1"}),
    ]
    assert len(set(different)) == len(different)


def test_a_signature_belongs_to_one_key() -> None:
    signers = [RowSigner(), RowSigner()]
    for number, signer in enumerate(signers):
        signer.use_key(bytes([number]) * 32)
    row = {"id": 1, "counter": 1}
    row_signed = {**row, "mac": signers[0].compute_mac("users", row)}
    assert signers[0].is_valid("users", row_signed)
    assert not signers[1].is_valid("users", row_signed)
    assert not RowSigner().is_valid("users", row_signed)


async def test_a_data_folder_that_cannot_be_written_to_does_not_stop_the_service(
    signed: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (signed.data / "signed-store.json").unlink()

    def reject(self: SigningRecordFile, record: SigningRecord) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "signed-store.json")

    monkeypatch.setattr(SigningRecordFile, "write", reject)
    async with start_app(signed) as app:
        assert app.process.stores.rows.is_enforced
    assert "signing_record_unwritable path=signed-store.json" in caplog.text


async def test_a_revoked_token_stays_as_a_row_until_it_would_have_expired(app: RunningApp) -> None:
    admin = await app.create_token("root", *ADMIN)
    robot = await app.create_token("robot", *READER, token_grants=READER)
    expires = "SELECT expires_at, kept_until FROM tokens WHERE hash = $1"
    ((until, _),) = await attack(app, expires, hash_token(robot))
    tokens = (await app.request("GET", "/tokens", token=admin)).json()["tokens"]
    (number,) = [token["id"] for token in tokens if token["login"] == "robot"]
    assert (await app.request("DELETE", f"/tokens/{number}", token=admin)).status_code < 300
    listed = (await app.request("GET", "/tokens", token=admin)).json()["tokens"]
    assert number not in [token["id"] for token in listed]
    assert (await app.read(robot)).status_code == 401
    ((ended, kept_until),) = await attack(app, expires, hash_token(robot))
    assert kept_until == until > ended
    assert (await app.request("DELETE", f"/tokens/{number}", token=admin)).status_code == 404
    await app.process.stores.tokens.delete_expired(before=until)
    assert await attack(app, expires, hash_token(robot))
    await app.process.stores.tokens.delete_expired(before=until + 1)
    assert not await attack(app, expires, hash_token(robot))


async def test_a_removed_user_stays_as_a_row_and_its_login_is_free(app: RunningApp) -> None:
    admin = await app.create_token("root", *ADMIN)
    token = await app.create_token("ada", *READER, token_grants=READER)
    ((number,),) = await attack(app, "SELECT id FROM users WHERE login = 'ada'")
    assert (await app.request("DELETE", "/users/ada", token=admin)).status_code < 300
    assert (await app.read(token)).status_code == 401
    rows = await attack(app, "SELECT login, password, is_admin, disabled FROM users WHERE id = $1", number)
    assert [tuple(row) for row in rows] == [(f"removed {number} ada", None, 0, 1)]
    logins = [user["login"] for user in (await app.request("GET", "/users", token=admin)).json()["users"]]
    assert logins == ["root"]
    assert (await app.request("GET", "/users/ada", token=admin)).status_code == 404
    body = {"login": "ada", "password": PASSWORD}
    added = await app.request("POST", "/user", token=admin, json=body)
    assert (added.status_code, added.json()["user_id"] > number) == (200, True)
    assert (await app.request("POST", "/login", json=body)).status_code == 200
    assert await list_altered(app) == []
