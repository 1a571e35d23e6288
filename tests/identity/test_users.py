"""Users, logins, passwords and tokens over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from confide.context import NO_REQUEST, current_request
from confide.identity import token_format
from confide.server.settings import Settings
from support.app import ADMIN, PASSWORD, RunningApp, settings_for, start_app
from support.canaries import canary

NEW = canary("password")


async def login(app: RunningApp, name: str, password: str = PASSWORD) -> dict[str, str]:
    reply = await app.ask("POST", "/login", json={"login": name, "password": password})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def works(app: RunningApp, token: str) -> bool:
    return (await app.ask("GET", "/tokens", token=token)).status_code == 200


async def test_the_first_user_becomes_admin_and_needs_no_token_on_loopback(app: RunningApp) -> None:
    first = await app.ask("POST", "/user", json={"login": "Ada", "password": PASSWORD})
    assert (first.status_code, first.json()) == (200, {"user_id": 1})
    token = (await login(app, "ada"))["token"]
    (user,) = (await app.ask("GET", "/users", token=token)).json()["users"]
    assert (user["login"], user["grants"][0]["role"], user["has_password"]) == ("ada", "admin", True)
    second = await app.ask("POST", "/user", json={"login": "eve", "password": PASSWORD})
    assert (second.status_code, second.json()["code"]) == (401, "no-token")
    assert (await app.ask("POST", "/user", token=token, json={"login": "bob"})).json() == {"user_id": 2}


async def test_of_several_first_users_one_wins(app: RunningApp) -> None:
    tries = [app.ask("POST", "/user", json={"login": f"user{n}", "password": PASSWORD}) for n in range(8)]
    statuses = sorted(reply.status_code for reply in await asyncio.gather(*tries))
    assert statuses == [200] + [401] * 7


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=1"}, {"Via": "1.1 proxy"}, {"Host": "evil.example"}],
)
async def test_a_first_user_from_elsewhere_is_none(app: RunningApp, headers: dict[str, str]) -> None:
    reply = await app.ask("POST", "/user", json={"login": "eve", "password": PASSWORD}, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (401, "no-token")


async def test_off_loopback_the_first_user_needs_the_setup_token(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", None, host="0.0.0.0", behind_tls_proxy=True)  # noqa: S104 - never bound
    async with start_app(settings, setup_token="the-setup-token") as app:
        document = {"login": "ada", "password": PASSWORD}
        for method, path in (("POST", "/user"), ("POST", "/config"), ("PUT", "/config"), ("POST", "/tokens")):
            assert (await app.ask(method, path, json=document)).status_code == 401
        assert (await app.ask("POST", "/user", token="another", json=document)).status_code == 401
        assert (await app.ask("POST", "/user", token="the-setup-token", json=document)).status_code == 200
        again = await app.ask("POST", "/user", token="the-setup-token", json={"login": "eve", "password": PASSWORD})
        assert again.status_code == 401


async def test_the_first_user_needs_a_password_and_a_good_one(app: RunningApp) -> None:
    assert (await app.ask("POST", "/user", json={"login": "ada"})).json()["code"] == "password-missing"
    weak = await app.ask("POST", "/user", json={"login": "ada", "password": "password1"})
    assert (weak.status_code, weak.json()["code"]) == (422, "password-common")
    assert (await app.ask("POST", "/user", json={"login": "ada", "password": PASSWORD})).status_code == 200


async def test_every_reason_of_a_failed_login_is_answered_alike(app: RunningApp) -> None:
    await app.user("ada", *ADMIN)
    await app.user("gone", *ADMIN)
    admin = await app.token("ada")
    await app.ask("PATCH", "/users/gone", token=admin, json={"disabled": True})
    await app.ask("POST", "/user", token=admin, json={"login": "robot"})
    answers = set()
    for name, password in (("ada", NEW), ("nobody", NEW), ("gone", PASSWORD), ("robot", NEW), (" ", NEW), ("ä", NEW)):
        reply = await app.ask("POST", "/login", json={"login": name, "password": password})
        headers = tuple((n, v) for n, v in reply.headers.items() if n not in ("date", "request-id"))
        answers.add((reply.status_code, reply.content, headers))
    assert len(answers) == 1
    assert answers.pop()[0] == 401


async def test_the_sixth_failure_waits_on_every_worker_and_for_logins_of_nobody(settings: Settings) -> None:
    async with start_app(settings) as one, start_app(settings) as other:
        await one.user("ada", *ADMIN)
        for name in ("ada", "nobody"):
            for number in range(5):
                worker = one if number % 2 else other
                reply = await worker.ask("POST", "/login", json={"login": name, "password": NEW})
                assert reply.status_code == 401
            for worker in (one, other):
                reply = await worker.ask("POST", "/login", json={"login": name, "password": PASSWORD})
                assert (reply.status_code, reply.json()["code"]) == (429, "rate-limited")
                assert 0 < int(reply.headers["retry-after"]) <= 901


async def test_a_login_in_time_is_not_counted_against_its_user(app: RunningApp) -> None:
    await app.user("ada", *ADMIN)
    for _ in range(3):
        for _ in range(4):
            await app.ask("POST", "/login", json={"login": "ada", "password": NEW})
        await login(app, "ada")


async def test_many_right_logins_at_once_are_all_let_in(app: RunningApp) -> None:
    await app.user("ada", *ADMIN)
    sessions = await asyncio.gather(*(login(app, "ada") for _ in range(12)))
    assert len({session["token"] for session in sessions}) == 12


async def test_twenty_failures_from_anywhere_close_the_login(app: RunningApp) -> None:
    await app.user("ada", *ADMIN)
    for number in range(20):
        current_request.set(replace(NO_REQUEST, address=f"2001:db8:{number:x}::1"))
        with pytest.raises(Exception, match="Wrong login or password"):
            await app.process.identity.tokens.login("ada", NEW)
    current_request.set(replace(NO_REQUEST, address="2001:db8:ffff::1"))
    with pytest.raises(Exception, match="Too many failed logins"):
        await app.process.identity.tokens.login("ada", PASSWORD)


async def test_one_network_of_ipv6_is_one_address(app: RunningApp) -> None:
    for number in range(6):
        current_request.set(replace(NO_REQUEST, address=f"2001:db8::{number:x}"))
        with pytest.raises(Exception, match="Wrong" if number < 5 else "Too many"):
            await app.process.identity.tokens.login("nobody", NEW)


async def test_logging_out_ends_this_session_and_no_other(app: RunningApp) -> None:
    await app.user("ada", *ADMIN)
    one, other = (await login(app, "ada"))["token"], (await login(app, "ada"))["token"]
    assert (await app.ask("POST", "/logout", token=one)).status_code == 200
    assert not await works(app, one)
    assert await works(app, other)


async def test_a_new_password_ends_all_other_sessions(app: RunningApp) -> None:
    await app.user("ada", *ADMIN)
    mine, other = (await login(app, "ada"))["token"], (await login(app, "ada"))["token"]
    worker = await app.token("ada", narrowed=ADMIN)
    wrong = await app.ask("PUT", "/users/me/password", token=mine, json={"old": NEW, "new": NEW})
    assert wrong.status_code == 403
    done = await app.ask("PUT", "/users/me/password", token=mine, json={"old": PASSWORD, "new": NEW})
    assert done.status_code == 200
    assert [await works(app, token) for token in (mine, other, worker)] == [True, False, True]
    await login(app, "ada", NEW)
    old = await app.ask("POST", "/login", json={"login": "ada", "password": PASSWORD})
    assert old.status_code == 401


async def test_a_disabled_user_and_its_tokens_are_out_at_once_and_may_come_back(app: RunningApp) -> None:
    admin = await app.token("ada", *ADMIN)
    session, worker = await app.token("bob", ("reader", "*", "*")), await app.token("bob", narrowed=ADMIN)
    assert (await app.ask("PATCH", "/users/bob", token=admin, json={"disabled": True})).json()["disabled"]
    assert [await works(app, token) for token in (session, worker)] == [False, False]
    await app.ask("PATCH", "/users/bob", token=admin, json={"disabled": False})
    assert [await works(app, token) for token in (session, worker)] == [False, True]


async def test_withdrawn_grants_act_at_once(app: RunningApp) -> None:
    admin, bob = await app.token("ada", *ADMIN), await app.token("bob", ("editor", "acme", "*"))
    assert (await app.save(bob, {"a": 1})).status_code == 200
    grant = {"role": "viewer", "tenant": "acme", "integration_type": "*"}
    await app.ask("PATCH", "/users/bob", token=admin, json={"grants": [grant]})
    assert (await app.save(bob, {"a": 2})).status_code == 403
    await app.ask("PATCH", "/users/bob", token=admin, json={"grants": []})
    assert (await app.save(bob, {"a": 3})).status_code == 404


async def test_an_admin_may_set_a_password_and_remove_a_user(app: RunningApp) -> None:
    admin, bob = await app.token("ada", *ADMIN), await app.token("bob")
    await app.ask("PATCH", "/users/bob", token=admin, json={"password": NEW})
    assert not await works(app, bob)
    session = (await login(app, "bob", NEW))["token"]
    assert (await app.ask("DELETE", "/users/bob", token=admin)).status_code == 200
    assert not await works(app, session)
    assert (await app.ask("GET", "/users/bob", token=admin)).status_code == 404
    last = await app.ask("DELETE", "/users/ada", token=admin)
    assert (last.status_code, last.json()["code"]) == (409, "last-admin")


async def test_a_service_token_is_told_once_and_does_what_its_grants_say(app: RunningApp) -> None:
    admin = await app.token("ada", *ADMIN)
    grant = {"role": "reader", "tenant": "acme", "integration_type": "*"}
    added = await app.ask("POST", "/tokens", token=admin, json={"label": "worker", "grants": [grant]})
    token = added.json()["token"]
    await app.save(admin, {"password": NEW})
    assert (await app.read(token)).json()["configuration"]["password"] == NEW
    assert (await app.save(token, {"a": 1})).status_code == 403
    listed = await app.ask("GET", "/tokens", token=admin)
    assert token not in listed.text
    assert [(t["label"], t["is_session"]) for t in listed.json()["tokens"]] == [("test", True), ("worker", False)]
    revoked = await app.ask("DELETE", f"/tokens/{added.json()['id']}", token=admin)
    assert revoked.status_code == 200
    assert (await app.read(token)).status_code == 401


async def test_an_admin_makes_tokens_for_service_accounts_and_nobody_else_does(app: RunningApp) -> None:
    admin, bob = await app.token("ada", *ADMIN), await app.token("bob", ("editor", "acme", "*"))
    grant = {"role": "reader", "tenant": "*", "integration_type": "*"}
    await app.ask("POST", "/user", token=admin, json={"login": "robot", "grants": [grant]})
    made = await app.ask("POST", "/tokens", token=admin, json={"label": "robot's", "login": "robot"})
    assert made.json()["login"] == "robot"
    assert (await app.ask("POST", "/tokens", token=bob, json={"label": "x", "login": "robot"})).status_code == 403
    unknown = await app.ask("POST", "/tokens", token=admin, json={"label": "x", "login": "nobody"})
    assert unknown.status_code == 404


async def test_an_expired_token_is_no_token(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await app.token("ada", *ADMIN)
    made = await app.ask("POST", "/tokens", token=admin, json={"label": "short", "ttl_seconds": 60})
    token = made.json()["token"]
    assert await works(app, token)
    clock = app.process.identity.tokens._clock
    for part in (app.process.identity.tokens, app.process.identity.authenticator):
        monkeypatch.setattr(part, "_clock", lambda: clock() + 61_000_000)
    app.process.changes.subscriber.clear_caches()
    assert not await works(app, token)
    await app.process.identity.tokens.delete_expired()
    assert len((await app.ask("GET", "/tokens", token=admin)).json()["tokens"]) == 1


async def test_the_old_contract_logs_in_and_saves_as_it_always_did(app: RunningApp) -> None:
    first = await app.ask("POST", "/user", json={"login": "ada", "password": PASSWORD})
    assert first.json() == {"user_id": 1}
    reply = await app.ask("GET", "/login", params={"login": "ada", "password": PASSWORD})
    token = reply.json()["token"]
    assert reply.headers["deprecation"].startswith("@")
    document = {"tenant": "acme", "integration_type": "crm", "configuration": {"a": 1}, "token": token}
    saved = await app.ask("POST", "/config", json=document)
    assert saved.json()["message"] == "Config 'acme : crm' is created"
    assert saved.headers["deprecation"]
    params = {"tenant": "acme", "integration_type": "crm", "token": token}
    read = await app.ask("GET", "/config", params=params)
    assert (read.json()["configuration"], "deprecation" in read.headers) == ({"a": 1}, True)
    added = await app.ask("POST", "/user", json={"login": "bob", "password": NEW, "token": token})
    assert added.json() == {"user_id": 2}
    assert "deprecation" not in (await app.read(token, type_="crm")).headers


async def test_two_credentials_are_one_too_many(app: RunningApp) -> None:
    token = await app.token("ada", *ADMIN)
    params = {"tenant": "acme", "integration_type": "crm", "token": token}
    both = await app.ask("GET", "/config", params=params, token=token)
    assert (both.status_code, both.json()["code"]) == (400, "two-credentials")
    document = {"tenant": "acme", "integration_type": "crm", "configuration": {"a": 1}, "token": token}
    assert (await app.ask("POST", "/config", json=document, token=token)).status_code == 400


async def test_the_old_contract_can_be_switched_off(tmp_path: Path) -> None:
    async with start_app(settings_for(tmp_path / "data", None, old_contract=False)) as app:
        token = await app.token("ada", *ADMIN)
        params = {"tenant": "acme", "integration_type": "crm", "token": token}
        assert (await app.ask("GET", "/config", params=params)).status_code == 401
        old = await app.ask("GET", "/login", params={"login": "ada", "password": PASSWORD})
        assert old.status_code == 405


async def test_health_says_when_the_store_is_away(sqlite_app: RunningApp) -> None:
    assert (await sqlite_app.ask("GET", "/health/ready")).status_code == 200
    sqlite_app.process.draining.is_draining = True
    draining = await sqlite_app.ask("GET", "/health/ready")
    assert (draining.status_code, draining.json()["reasons"][0]) == (503, "draining")
    await sqlite_app.process.stores.close()
    away = await sqlite_app.ask("GET", "/health/ready")
    assert (away.status_code, away.json()["status"]) == (503, "unavailable")
    assert (await sqlite_app.ask("GET", "/health/live")).status_code == 200
    saved = await sqlite_app.ask("GET", "/tokens", token=token_format.generate_token())
    assert (saved.status_code, saved.json()["code"], saved.headers["retry-after"]) == (503, "store-unavailable", "1")


async def test_a_bug_is_told_as_one_and_nothing_of_it(sqlite_app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await sqlite_app.token("ada", *ADMIN)
    monkeypatch.setattr(sqlite_app.process.reads.reader, "_cache", None)
    reply = await sqlite_app.read(token)
    assert (reply.status_code, reply.json()["code"]) == (500, "internal-error")
    assert "NoneType" not in reply.text
    monkeypatch.setattr(sqlite_app.process.identity.users, "_users", None)
    assert (await sqlite_app.ask("GET", "/users", token=token)).json()["code"] == "internal-error"


async def test_a_login_that_overlaps_a_new_password_is_no_way_past_it(app: RunningApp) -> None:
    admin = await app.token("root", *ADMIN)
    await app.user("ada", ("reader", "*", "*"))
    for old, new in ((PASSWORD, NEW), (NEW, canary("password"))):
        document = {"login": "ada", "password": old}
        logins = [asyncio.create_task(app.ask("POST", "/login", json=document)) for _ in range(3)]
        await asyncio.sleep(0.02)
        changed = await app.ask("PATCH", "/users/ada", token=admin, json={"password": new})
        assert changed.status_code == 200
        tokens = [reply.json().get("token") for reply in await asyncio.gather(*logins)]
        assert not any([await works(app, token) for token in tokens if token])


async def test_a_user_removed_while_logging_in_is_told_that_the_login_failed(app: RunningApp) -> None:
    admin = await app.token("root", *ADMIN)
    for _ in range(3):
        await app.user("ada")
        under_way = asyncio.create_task(app.ask("POST", "/login", json={"login": "ada", "password": PASSWORD}))
        await asyncio.sleep(0.02)
        assert (await app.ask("DELETE", "/users/ada", token=admin)).status_code == 200
        assert (await under_way).status_code in (200, 401)


async def test_a_password_that_nobody_looked_at_is_no_failed_login(app: RunningApp) -> None:
    await app.user("ada", *ADMIN)
    hasher = app.process.hasher
    hasher.waiting = 1_000
    for _ in range(7):
        reply = await app.ask("POST", "/login", json={"login": "ada", "password": PASSWORD})
        assert (reply.status_code, reply.json()["code"]) == (503, "busy")
    hasher.waiting = 0
    await login(app, "ada")
