"""Users, logins, passwords and tokens over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from confide.context import Caller, caller
from confide.identity import token_format
from confide.server.settings import Settings
from support.canaries import canary
from support.house import ADMIN, PASSWORD, House, house_at, settings_for

NEW = canary("password")


async def login(house: House, name: str, password: str = PASSWORD) -> dict[str, str]:
    reply = await house.ask("POST", "/login", json={"login": name, "password": password})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def works(house: House, token: str) -> bool:
    return (await house.ask("GET", "/tokens", token=token)).status_code == 200


async def test_the_first_user_becomes_admin_and_needs_no_token_on_loopback(house: House) -> None:
    first = await house.ask("POST", "/user", json={"login": "Ada", "password": PASSWORD})
    assert (first.status_code, first.json()) == (200, {"user_id": 1})
    token = (await login(house, "ada"))["token"]
    (user,) = (await house.ask("GET", "/users", token=token)).json()["users"]
    assert (user["login"], user["grants"][0]["role"], user["has_password"]) == ("ada", "admin", True)
    second = await house.ask("POST", "/user", json={"login": "eve", "password": PASSWORD})
    assert (second.status_code, second.json()["code"]) == (401, "no-token")
    assert (await house.ask("POST", "/user", token=token, json={"login": "bob"})).json() == {"user_id": 2}


async def test_of_several_first_users_one_wins(house: House) -> None:
    tries = [house.ask("POST", "/user", json={"login": f"user{n}", "password": PASSWORD}) for n in range(8)]
    statuses = sorted(reply.status_code for reply in await asyncio.gather(*tries))
    assert statuses == [200] + [401] * 7


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=1"}, {"Via": "1.1 proxy"}, {"Host": "evil.example"}],
)
async def test_a_first_user_from_elsewhere_is_none(house: House, headers: dict[str, str]) -> None:
    reply = await house.ask("POST", "/user", json={"login": "eve", "password": PASSWORD}, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (401, "no-token")


async def test_off_loopback_the_first_user_needs_the_setup_token(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", None, host="0.0.0.0", behind_tls_proxy=True)  # noqa: S104 - never bound
    async with house_at(settings, setup_token="the-setup-token") as house:
        document = {"login": "ada", "password": PASSWORD}
        for method, path in (("POST", "/user"), ("POST", "/config"), ("PUT", "/config"), ("POST", "/tokens")):
            assert (await house.ask(method, path, json=document)).status_code == 401
        assert (await house.ask("POST", "/user", token="another", json=document)).status_code == 401
        assert (await house.ask("POST", "/user", token="the-setup-token", json=document)).status_code == 200
        again = await house.ask("POST", "/user", token="the-setup-token", json={"login": "eve", "password": PASSWORD})
        assert again.status_code == 401


async def test_the_first_user_needs_a_password_and_a_good_one(house: House) -> None:
    assert (await house.ask("POST", "/user", json={"login": "ada"})).json()["code"] == "password-missing"
    weak = await house.ask("POST", "/user", json={"login": "ada", "password": "password1"})
    assert (weak.status_code, weak.json()["code"]) == (422, "password-common")
    assert (await house.ask("POST", "/user", json={"login": "ada", "password": PASSWORD})).status_code == 200


async def test_every_reason_of_a_failed_login_is_answered_alike(house: House) -> None:
    await house.user("ada", *ADMIN)
    await house.user("gone", *ADMIN)
    admin = await house.token("ada")
    await house.ask("PATCH", "/users/gone", token=admin, json={"disabled": True})
    await house.ask("POST", "/user", token=admin, json={"login": "robot"})
    answers = set()
    for name, password in (("ada", NEW), ("nobody", NEW), ("gone", PASSWORD), ("robot", NEW), (" ", NEW), ("ä", NEW)):
        reply = await house.ask("POST", "/login", json={"login": name, "password": password})
        headers = tuple((n, v) for n, v in reply.headers.items() if n not in ("date", "request-id"))
        answers.add((reply.status_code, reply.content, headers))
    assert len(answers) == 1
    assert answers.pop()[0] == 401


async def test_the_sixth_failure_waits_on_every_worker_and_for_logins_of_nobody(settings: Settings) -> None:
    async with house_at(settings) as one, house_at(settings) as other:
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


async def test_a_login_in_time_is_not_counted_against_its_user(house: House) -> None:
    await house.user("ada", *ADMIN)
    for _ in range(3):
        for _ in range(4):
            await house.ask("POST", "/login", json={"login": "ada", "password": NEW})
        await login(house, "ada")


async def test_many_right_logins_at_once_are_all_let_in(house: House) -> None:
    await house.user("ada", *ADMIN)
    sessions = await asyncio.gather(*(login(house, "ada") for _ in range(12)))
    assert len({session["token"] for session in sessions}) == 12


async def test_twenty_failures_from_anywhere_close_the_login(house: House) -> None:
    await house.user("ada", *ADMIN)
    for number in range(20):
        caller.set(Caller(f"2001:db8:{number:x}::1", "-"))
        with pytest.raises(Exception, match="Wrong login or password"):
            await house.process.identity.tokens.login("ada", NEW)
    caller.set(Caller("2001:db8:ffff::1", "-"))
    with pytest.raises(Exception, match="Too many failed logins"):
        await house.process.identity.tokens.login("ada", PASSWORD)


async def test_one_network_of_ipv6_is_one_address(house: House) -> None:
    for number in range(6):
        caller.set(Caller(f"2001:db8::{number:x}", "-"))
        with pytest.raises(Exception, match="Wrong" if number < 5 else "Too many"):
            await house.process.identity.tokens.login("nobody", NEW)


async def test_logging_out_ends_this_session_and_no_other(house: House) -> None:
    await house.user("ada", *ADMIN)
    one, other = (await login(house, "ada"))["token"], (await login(house, "ada"))["token"]
    assert (await house.ask("POST", "/logout", token=one)).status_code == 200
    assert not await works(house, one)
    assert await works(house, other)


async def test_a_new_password_ends_all_other_sessions(house: House) -> None:
    await house.user("ada", *ADMIN)
    mine, other = (await login(house, "ada"))["token"], (await login(house, "ada"))["token"]
    worker = await house.token("ada", narrowed=ADMIN)
    wrong = await house.ask("PUT", "/users/me/password", token=mine, json={"old": NEW, "new": NEW})
    assert wrong.status_code == 403
    done = await house.ask("PUT", "/users/me/password", token=mine, json={"old": PASSWORD, "new": NEW})
    assert done.status_code == 200
    assert [await works(house, token) for token in (mine, other, worker)] == [True, False, True]
    await login(house, "ada", NEW)
    old = await house.ask("POST", "/login", json={"login": "ada", "password": PASSWORD})
    assert old.status_code == 401


async def test_a_disabled_user_and_its_tokens_are_out_at_once_and_may_come_back(house: House) -> None:
    admin = await house.token("ada", *ADMIN)
    session, worker = await house.token("bob", ("reader", "*", "*")), await house.token("bob", narrowed=ADMIN)
    assert (await house.ask("PATCH", "/users/bob", token=admin, json={"disabled": True})).json()["disabled"]
    assert [await works(house, token) for token in (session, worker)] == [False, False]
    await house.ask("PATCH", "/users/bob", token=admin, json={"disabled": False})
    assert [await works(house, token) for token in (session, worker)] == [False, True]


async def test_withdrawn_grants_act_at_once(house: House) -> None:
    admin, bob = await house.token("ada", *ADMIN), await house.token("bob", ("editor", "acme", "*"))
    assert (await house.save(bob, {"a": 1})).status_code == 200
    grant = {"role": "viewer", "tenant": "acme", "integration_type": "*"}
    await house.ask("PATCH", "/users/bob", token=admin, json={"grants": [grant]})
    assert (await house.save(bob, {"a": 2})).status_code == 403
    await house.ask("PATCH", "/users/bob", token=admin, json={"grants": []})
    assert (await house.save(bob, {"a": 3})).status_code == 404


async def test_an_admin_may_set_a_password_and_remove_a_user(house: House) -> None:
    admin, bob = await house.token("ada", *ADMIN), await house.token("bob")
    await house.ask("PATCH", "/users/bob", token=admin, json={"password": NEW})
    assert not await works(house, bob)
    session = (await login(house, "bob", NEW))["token"]
    assert (await house.ask("DELETE", "/users/bob", token=admin)).status_code == 200
    assert not await works(house, session)
    assert (await house.ask("GET", "/users/bob", token=admin)).status_code == 404
    last = await house.ask("DELETE", "/users/ada", token=admin)
    assert (last.status_code, last.json()["code"]) == (409, "last-admin")


async def test_a_service_token_is_told_once_and_does_what_its_grants_say(house: House) -> None:
    admin = await house.token("ada", *ADMIN)
    grant = {"role": "reader", "tenant": "acme", "integration_type": "*"}
    added = await house.ask("POST", "/tokens", token=admin, json={"label": "worker", "grants": [grant]})
    token = added.json()["token"]
    await house.save(admin, {"password": NEW})
    assert (await house.read(token)).json()["configuration"]["password"] == NEW
    assert (await house.save(token, {"a": 1})).status_code == 403
    listed = await house.ask("GET", "/tokens", token=admin)
    assert token not in listed.text
    assert [(t["label"], t["is_session"]) for t in listed.json()["tokens"]] == [("test", True), ("worker", False)]
    revoked = await house.ask("DELETE", f"/tokens/{added.json()['id']}", token=admin)
    assert revoked.status_code == 200
    assert (await house.read(token)).status_code == 401


async def test_an_admin_makes_tokens_for_service_accounts_and_nobody_else_does(house: House) -> None:
    admin, bob = await house.token("ada", *ADMIN), await house.token("bob", ("editor", "acme", "*"))
    grant = {"role": "reader", "tenant": "*", "integration_type": "*"}
    await house.ask("POST", "/user", token=admin, json={"login": "robot", "grants": [grant]})
    made = await house.ask("POST", "/tokens", token=admin, json={"label": "robot's", "login": "robot"})
    assert made.json()["login"] == "robot"
    assert (await house.ask("POST", "/tokens", token=bob, json={"label": "x", "login": "robot"})).status_code == 403
    unknown = await house.ask("POST", "/tokens", token=admin, json={"label": "x", "login": "nobody"})
    assert unknown.status_code == 404


async def test_an_expired_token_is_no_token(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await house.token("ada", *ADMIN)
    made = await house.ask("POST", "/tokens", token=admin, json={"label": "short", "ttl_seconds": 60})
    token = made.json()["token"]
    assert await works(house, token)
    clock = house.process.identity.tokens._clock
    for part in (house.process.identity.tokens, house.process.identity.authenticator):
        monkeypatch.setattr(part, "_clock", lambda: clock() + 61_000_000)
    house.process.changes.subscriber.forget_all()
    assert not await works(house, token)
    await house.process.identity.tokens.forget_expired()
    assert len((await house.ask("GET", "/tokens", token=admin)).json()["tokens"]) == 1


async def test_the_old_contract_logs_in_and_saves_as_it_always_did(house: House) -> None:
    first = await house.ask("POST", "/user", json={"login": "ada", "password": PASSWORD})
    assert first.json() == {"user_id": 1}
    reply = await house.ask("GET", "/login", params={"login": "ada", "password": PASSWORD})
    token = reply.json()["token"]
    assert reply.headers["deprecation"].startswith("@")
    document = {"tenant": "acme", "integration_type": "crm", "configuration": {"a": 1}, "token": token}
    saved = await house.ask("POST", "/config", json=document)
    assert saved.json()["message"] == "Config 'acme : crm' is created"
    assert saved.headers["deprecation"]
    params = {"tenant": "acme", "integration_type": "crm", "token": token}
    read = await house.ask("GET", "/config", params=params)
    assert (read.json()["configuration"], "deprecation" in read.headers) == ({"a": 1}, True)
    added = await house.ask("POST", "/user", json={"login": "bob", "password": NEW, "token": token})
    assert added.json() == {"user_id": 2}
    assert "deprecation" not in (await house.read(token, type_="crm")).headers


async def test_two_credentials_are_one_too_many(house: House) -> None:
    token = await house.token("ada", *ADMIN)
    params = {"tenant": "acme", "integration_type": "crm", "token": token}
    both = await house.ask("GET", "/config", params=params, token=token)
    assert (both.status_code, both.json()["code"]) == (400, "two-credentials")
    document = {"tenant": "acme", "integration_type": "crm", "configuration": {"a": 1}, "token": token}
    assert (await house.ask("POST", "/config", json=document, token=token)).status_code == 400


async def test_the_old_contract_can_be_switched_off(tmp_path: Path) -> None:
    async with house_at(settings_for(tmp_path / "data", None, old_contract=False)) as house:
        token = await house.token("ada", *ADMIN)
        params = {"tenant": "acme", "integration_type": "crm", "token": token}
        assert (await house.ask("GET", "/config", params=params)).status_code == 401
        old = await house.ask("GET", "/login", params={"login": "ada", "password": PASSWORD})
        assert old.status_code == 405


async def test_health_says_when_the_store_is_away(sqlite_house: House) -> None:
    assert (await sqlite_house.ask("GET", "/health/ready")).status_code == 200
    sqlite_house.process.draining.is_draining = True
    draining = await sqlite_house.ask("GET", "/health/ready")
    assert (draining.status_code, draining.json()["reasons"][0]) == (503, "draining")
    await sqlite_house.process.stores.close()
    away = await sqlite_house.ask("GET", "/health/ready")
    assert (away.status_code, away.json()["status"]) == (503, "unavailable")
    assert (await sqlite_house.ask("GET", "/health/live")).status_code == 200
    saved = await sqlite_house.ask("GET", "/tokens", token=token_format.new_token())
    assert (saved.status_code, saved.json()["code"], saved.headers["retry-after"]) == (503, "store-unavailable", "1")


async def test_a_bug_is_told_as_one_and_nothing_of_it(sqlite_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await sqlite_house.token("ada", *ADMIN)
    monkeypatch.setattr(sqlite_house.process.reads.reader, "_cache", None)
    reply = await sqlite_house.read(token)
    assert (reply.status_code, reply.json()["code"]) == (500, "internal-error")
    assert "NoneType" not in reply.text
    monkeypatch.setattr(sqlite_house.process.identity.users, "_users", None)
    assert (await sqlite_house.ask("GET", "/users", token=token)).json()["code"] == "internal-error"


async def test_a_login_that_overlaps_a_new_password_is_no_way_past_it(house: House) -> None:
    admin = await house.token("root", *ADMIN)
    await house.user("ada", ("reader", "*", "*"))
    for old, new in ((PASSWORD, NEW), (NEW, canary("password"))):
        document = {"login": "ada", "password": old}
        logins = [asyncio.create_task(house.ask("POST", "/login", json=document)) for _ in range(3)]
        await asyncio.sleep(0.02)
        changed = await house.ask("PATCH", "/users/ada", token=admin, json={"password": new})
        assert changed.status_code == 200
        tokens = [reply.json().get("token") for reply in await asyncio.gather(*logins)]
        assert not any([await works(house, token) for token in tokens if token])


async def test_a_user_removed_while_logging_in_is_told_that_the_login_failed(house: House) -> None:
    admin = await house.token("root", *ADMIN)
    for _ in range(3):
        await house.user("ada")
        under_way = asyncio.create_task(house.ask("POST", "/login", json={"login": "ada", "password": PASSWORD}))
        await asyncio.sleep(0.02)
        assert (await house.ask("DELETE", "/users/ada", token=admin)).status_code == 200
        assert (await under_way).status_code in (200, 401)


async def test_a_password_that_nobody_looked_at_is_no_failed_login(house: House) -> None:
    await house.user("ada", *ADMIN)
    hasher = house.process.hasher
    hasher.waiting = 1_000
    for _ in range(7):
        reply = await house.ask("POST", "/login", json={"login": "ada", "password": PASSWORD})
        assert (reply.status_code, reply.json()["code"]) == (503, "busy")
    hasher.waiting = 0
    await login(house, "ada")
