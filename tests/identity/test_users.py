"""Users, logins, passwords and tokens over HTTP."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from confide.context import NO_REQUEST, compute_remaining_seconds, current_request, set_deadline
from confide.errors import Busy
from confide.identity import token_format
from confide.identity.hasher import Argon2Hasher
from confide.server.application import Application
from confide.server.settings import Settings
from support.app import ADMIN, PASSWORD, RunningApp, build_settings, start_app
from support.canaries import make_canary

NEW_PASSWORD = make_canary("password")


async def log_in(app: RunningApp, name: str, password: str = PASSWORD) -> dict[str, str]:
    while True:
        reply = await app.request("POST", "/login", json={"login": name, "password": password})
        if reply.json().get("code") != "busy":  # a busy machine may respond so, and clients then try again
            break
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def is_valid(app: RunningApp, token: str) -> bool:
    return (await app.request("GET", "/tokens", token=token)).status_code == 200


async def test_the_first_user_becomes_admin_and_needs_no_token_on_loopback(app: RunningApp) -> None:
    first = await app.request("POST", "/user", json={"login": "Ada", "password": PASSWORD})
    assert (first.status_code, first.json()) == (200, {"user_id": 1})
    token = (await log_in(app, "ada"))["token"]
    (user,) = (await app.request("GET", "/users", token=token)).json()["users"]
    assert (user["login"], user["grants"][0]["role"], user["has_password"]) == ("ada", "admin", True)
    second = await app.request("POST", "/user", json={"login": "eve", "password": PASSWORD})
    assert (second.status_code, second.json()["code"]) == (401, "no-token")
    assert (await app.request("POST", "/user", token=token, json={"login": "bob"})).json() == {"user_id": 2}


@pytest.mark.parametrize("spelling", ["ada+ops@example.com", "ada+ops%40example.com", "Ada%2Bops%40Example.com"])
async def test_a_user_with_an_email_address_logs_in_and_is_managed(app: RunningApp, spelling: str) -> None:
    admin = await app.create_token("root", *ADMIN)
    login = {"login": "Ada+Ops@example.com", "password": PASSWORD}
    assert (await app.request("POST", "/user", token=admin, json=login)).status_code == 200
    token = (await log_in(app, "ada+ops@EXAMPLE.com"))["token"]
    assert (await app.request("POST", "/tokens", token=token, json={"label": "own"})).status_code == 200
    found = await app.request("GET", f"/users/{spelling}", token=admin)
    assert (found.status_code, found.json()["login"]) == (200, "ada+ops@example.com")
    await app.process.audit.chain_writer.append_entries()
    audited = await app.request("GET", "/audit", token=admin, params={"actor": "ada+ops@example.com"})
    assert [entry["action"] for entry in audited.json()["entries"]] == ["add token"]
    removed = await app.request("DELETE", f"/users/{spelling}", token=admin)
    assert removed.status_code == 200
    assert (await app.request("GET", f"/users/{spelling}", token=admin)).status_code == 404


@pytest.mark.parametrize("path", ["/login", "/user", "/tokens", "/config/rollback"])
@pytest.mark.parametrize(
    "text",
    [
        '{"%s":1}',
        '{"login":"ada","password":{"%s":1e999}}',
        '{"%s":1e999}',
        '{"grants":[{"%s":"x"}]}',
        '{"a":1,"%s":{}}',
    ],
)
async def test_an_error_does_not_repeat_the_name_of_an_unknown_member(app: RunningApp, path: str, text: str) -> None:
    token = await app.create_token("root", *ADMIN)
    secret = make_canary("password")
    for name in (secret, "1234567890"):
        reply = await app.request(
            "POST", path, token=token, content=text % name, headers={"Content-Type": "application/json"}
        )
        assert reply.status_code in (400, 422), reply.text
        assert name not in reply.text
        assert reply.json()["code"] in ("unknown-member", "number-out-of-range", "invalid-body"), reply.text


async def test_one_of_several_concurrent_first_users_is_added(app: RunningApp) -> None:
    requests = [app.request("POST", "/user", json={"login": f"user{n}", "password": PASSWORD}) for n in range(8)]
    statuses = sorted(reply.status_code for reply in await asyncio.gather(*requests))
    assert statuses == [200] + [401] * 7


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Forwarded": "for=1"},
        {"Via": "1.1 proxy"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Prefix": "/config"},
        {"X-Forwarded-Client-Cert": "By=x"},
        {"X-Real-IP": "127.0.0.1"},
        {"X-Client-IP": "127.0.0.1"},
        {"CF-Connecting-IP": "127.0.0.1"},
        {"CF-Ray": "1"},
        {"True-Client-IP": "127.0.0.1"},
    ],
)
async def test_a_proxied_request_cannot_add_the_first_user(app: RunningApp, headers: dict[str, str]) -> None:
    reply = await app.request("POST", "/user", json={"login": "eve", "password": PASSWORD}, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (401, "no-token")


@pytest.mark.parametrize(("settings_", "client"), [({}, "192.0.2.1"), ({"setup_token": "required"}, "127.0.0.1")])
async def test_the_first_user_needs_the_setup_token_from_elsewhere_or_if_it_is_required(
    tmp_path: Path, settings_: dict[str, str], client: str
) -> None:
    document = {"login": "ada", "password": PASSWORD}
    async with start_app(build_settings(tmp_path / "data", None, **settings_), setup_token="the-setup-token") as app:
        transport = httpx2.ASGITransport(app=Application(lambda: app.process), client=(client, 1_234))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            assert (await http.post("/user", json=document)).status_code == 401
            bearer = {"Authorization": "Bearer the-setup-token"}
            assert (await http.post("/user", json=document, headers=bearer)).status_code == 200


async def test_the_first_user_needs_the_setup_token_in_http_1_0(app: RunningApp) -> None:
    async def send_as_http_1_0(scope: Any, receive: Any, send: Any) -> None:
        await app.http._transport.app({**scope, "http_version": "1.0"}, receive, send)  # type: ignore[attr-defined]

    transport = httpx2.ASGITransport(app=send_as_http_1_0)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        reply = await http.post("/user", json={"login": "eve", "password": PASSWORD})
        assert (reply.status_code, reply.json()["code"]) == (401, "no-token")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Sec-Fetch-Site": "same-origin"}, 401),
        ({"Sec-Fetch-Site": "none"}, 401),
        ({"Origin": "http://localhost"}, 401),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"}, 403),
        ({"Sec-Fetch-Site": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_a_page_of_another_site_cannot_lock_out_a_user(
    app: RunningApp, headers: dict[str, str], status: int
) -> None:
    await app.add_user("ada", *ADMIN)
    for _ in range(5 if status == 403 else 1):
        wrong = {"login": "ada", "password": NEW_PASSWORD}
        reply = await app.request("GET", "/login", params=wrong, headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (
            status,
            "cross-site-request" if status == 403 else "login-failed",
        )
    await log_in(app, "ada")


async def test_a_password_that_an_admin_sets_unlocks_the_login(app: RunningApp) -> None:
    admin = await app.create_token("root", *ADMIN)
    await app.add_user("ada")
    for _ in range(6):
        reply = await app.request("POST", "/login", json={"login": "ada", "password": "wrong password"})
    assert reply.status_code == 429
    changed = await app.request("PATCH", "/users/ada", token=admin, json={"password": NEW_PASSWORD})
    assert changed.status_code == 200
    await log_in(app, "ada", NEW_PASSWORD)


async def test_the_first_user_needs_the_setup_token_off_loopback(tmp_path: Path) -> None:
    settings = build_settings(tmp_path / "data", None, host="0.0.0.0", behind_tls_proxy=True)  # noqa: S104 - never bound
    async with start_app(settings, setup_token="the-setup-token") as app:
        document = {"login": "ada", "password": PASSWORD}
        for method, path in (("POST", "/user"), ("POST", "/config"), ("PUT", "/config"), ("POST", "/tokens")):
            assert (await app.request(method, path, json=document)).status_code == 401
        assert (await app.request("POST", "/user", token="another", json=document)).status_code == 401
        assert (await app.request("POST", "/user", token="the-setup-token", json=document)).status_code == 200
        again = await app.request("POST", "/user", token="the-setup-token", json={"login": "eve", "password": PASSWORD})
        assert again.status_code == 401


async def test_the_first_user_needs_a_strong_password(app: RunningApp) -> None:
    assert (await app.request("POST", "/user", json={"login": "ada"})).json()["code"] == "password-missing"
    weak = await app.request("POST", "/user", json={"login": "ada", "password": "password1"})
    assert (weak.status_code, weak.json()["code"]) == (422, "password-common")
    assert (await app.request("POST", "/user", json={"login": "ada", "password": PASSWORD})).status_code == 200


async def test_every_failed_login_gets_the_same_response(app: RunningApp) -> None:
    await app.add_user("ada", *ADMIN)
    await app.add_user("gone", *ADMIN)
    admin = await app.create_token("ada")
    await app.request("PATCH", "/users/gone", token=admin, json={"disabled": True})
    await app.request("POST", "/user", token=admin, json={"login": "robot"})
    responses = set()
    for name, password in (
        ("ada", NEW_PASSWORD),
        ("nobody", NEW_PASSWORD),
        ("gone", PASSWORD),
        ("robot", NEW_PASSWORD),
        (" ", NEW_PASSWORD),
        ("ä", NEW_PASSWORD),
    ):
        reply = await app.request("POST", "/login", json={"login": name, "password": password})
        headers = tuple((n, v) for n, v in reply.headers.items() if n not in ("date", "request-id"))
        responses.add((reply.status_code, reply.content, headers))
    assert len(responses) == 1
    assert responses.pop()[0] == 401


async def test_the_sixth_failed_login_is_throttled_on_every_worker_even_for_unknown_users(settings: Settings) -> None:
    async with start_app(settings) as one, start_app(settings) as other:
        await one.add_user("ada", *ADMIN)
        for name in ("ada", "nobody"):
            for number in range(5):
                worker = one if number % 2 else other
                reply = await worker.request("POST", "/login", json={"login": name, "password": NEW_PASSWORD})
                assert reply.status_code == 401
            for worker in (one, other):
                reply = await worker.request("POST", "/login", json={"login": name, "password": PASSWORD})
                assert (reply.status_code, reply.json()["code"]) == (429, "rate-limited")
                assert 0 < int(reply.headers["retry-after"]) <= 901
                assert reply.json()["detail"] == "Too many failed logins. Try again in 15 minutes."


async def test_a_successful_login_clears_the_failures(app: RunningApp) -> None:
    await app.add_user("ada", *ADMIN)
    for _ in range(3):
        for _ in range(4):
            await app.request("POST", "/login", json={"login": "ada", "password": NEW_PASSWORD})
        await log_in(app, "ada")


async def test_concurrent_correct_logins_all_succeed(app: RunningApp) -> None:
    await app.add_user("ada", *ADMIN)
    sessions = await asyncio.gather(*(log_in(app, "ada") for _ in range(12)))
    assert len({session["token"] for session in sessions}) == 12


async def test_the_time_of_a_hash_is_not_charged_to_the_database() -> None:
    hasher = Argon2Hasher()
    set_deadline(time.monotonic() + 0.01)
    await hasher.hash(PASSWORD)
    left = compute_remaining_seconds()
    hasher.close()
    assert left > 0


async def test_a_login_that_waits_too_long_for_others_is_busy(app: RunningApp) -> None:
    throttle = app.process.identity.users._throttle

    async def begin_with_little_time() -> None:
        set_deadline(time.monotonic() + 0.01)
        async with throttle.begin_attempt("ada"):
            pass

    async with throttle.begin_attempt("ada"):
        waiting = asyncio.create_task(begin_with_little_time())
        await asyncio.sleep(0.05)
    with pytest.raises(Busy):
        await waiting


async def test_twenty_failures_from_any_addresses_throttle_the_login(app: RunningApp) -> None:
    await app.add_user("ada", *ADMIN)
    for number in range(20):
        current_request.set(replace(NO_REQUEST, address=f"2001:db8:{number:x}::1"))
        with pytest.raises(Exception, match="Wrong login or password"):
            await app.process.identity.tokens.login("ada", NEW_PASSWORD)
    current_request.set(replace(NO_REQUEST, address="2001:db8:ffff::1"))
    with pytest.raises(Exception, match="Too many failed logins"):
        await app.process.identity.tokens.login("ada", PASSWORD)


async def test_an_ipv6_network_counts_as_one_address(app: RunningApp) -> None:
    for number in range(6):
        current_request.set(replace(NO_REQUEST, address=f"2001:db8::{number:x}"))
        with pytest.raises(Exception, match="Wrong" if number < 5 else "Too many"):
            await app.process.identity.tokens.login("nobody", NEW_PASSWORD)


async def test_a_logout_ends_only_its_own_session(app: RunningApp) -> None:
    await app.add_user("ada", *ADMIN)
    one, other = (await log_in(app, "ada"))["token"], (await log_in(app, "ada"))["token"]
    assert (await app.request("POST", "/logout", token=one)).status_code == 200
    assert not await is_valid(app, one)
    assert await is_valid(app, other)


@pytest.mark.parametrize("is_keeping_tokens", [False, True])
async def test_a_new_password_ends_all_other_tokens_or_keeps_service_tokens(
    app: RunningApp, *, is_keeping_tokens: bool
) -> None:
    await app.add_user("ada", *ADMIN)
    own, other = (await log_in(app, "ada"))["token"], (await log_in(app, "ada"))["token"]
    worker = await app.create_token("ada", token_grants=ADMIN)
    wrong = await app.request("PUT", "/users/me/password", token=own, json={"old": NEW_PASSWORD, "new": NEW_PASSWORD})
    assert wrong.status_code == 403
    keeping = {"keep_tokens": True} if is_keeping_tokens else {}
    change = {"old": PASSWORD, "new": NEW_PASSWORD, **keeping}
    done = await app.request("PUT", "/users/me/password", token=own, json=change)
    assert done.status_code == 200
    assert [await is_valid(app, token) for token in (own, other, worker)] == [True, False, is_keeping_tokens]
    await log_in(app, "ada", NEW_PASSWORD)
    old = await app.request("POST", "/login", json={"login": "ada", "password": PASSWORD})
    assert old.status_code == 401


@pytest.mark.parametrize("is_keeping_tokens", [False, True])
async def test_a_reset_password_ends_all_tokens_or_keeps_service_tokens(
    app: RunningApp, *, is_keeping_tokens: bool
) -> None:
    admin, session = await app.create_token("ada", *ADMIN), await app.create_token("bob")
    worker = await app.create_token("bob", token_grants=ADMIN)
    robot = await create_service_account_token(app, admin)
    alone = await app.request("PATCH", "/users/bob", token=admin, json={"keep_tokens": True})
    assert (alone.status_code, alone.json()["errors"][0]["code"]) == (422, "password-missing")
    keeping = {"keep_tokens": True} if is_keeping_tokens else {}
    done = await app.request("PATCH", "/users/bob", token=admin, json={"password": NEW_PASSWORD, **keeping})
    assert done.status_code == 200
    assert [await is_valid(app, token) for token in (session, worker)] == [False, is_keeping_tokens]
    # The tokens of a service account stay: they never depended on a password.
    await app.request("PATCH", "/users/robot", token=admin, json={"password": NEW_PASSWORD})
    assert await is_valid(app, robot)


async def create_service_account_token(app: RunningApp, admin: str) -> str:
    assert (await app.request("POST", "/user", token=admin, json={"login": "robot"})).status_code == 200
    added = await app.request("POST", "/tokens", token=admin, json={"label": "robot's", "login": "robot"})
    return str(added.json()["token"])


async def test_a_token_expires_no_later_than_the_service_token_that_creates_it(app: RunningApp) -> None:
    session = await app.create_token("ada", *ADMIN)
    await app.request("POST", "/user", token=session, json={"login": "robot"})
    maker = (await app.request("POST", "/tokens", token=session, json={"label": "m", "ttl_seconds": 3_600})).json()
    for login in ("ada", "robot"):
        document = {"label": "made", "ttl_seconds": 90 * 86_400, "login": login}
        made = (await app.request("POST", "/tokens", token=maker["token"], json=document)).json()
        assert made["expires_at"] == maker["expires_at"]
    document = {"label": "shorter", "ttl_seconds": 60}
    shorter = (await app.request("POST", "/tokens", token=maker["token"], json=document)).json()
    assert shorter["expires_at"] < maker["expires_at"]


async def test_a_token_with_its_own_grants_makes_no_user_token_or_password(app: RunningApp) -> None:
    await app.add_user("ada", *ADMIN)
    await app.add_user("bob")
    # The grants of the token are those of an admin: a user that it makes would have none of its limits.
    narrow = await app.create_token("ada", token_grants=ADMIN)
    requests = [
        ("POST", "/user", {"login": "eve", "password": NEW_PASSWORD}),
        ("POST", "/tokens", {"label": "wide"}),
        ("POST", "/tokens", {"label": "wide", "login": "bob"}),
        ("PATCH", "/users/bob", {"password": NEW_PASSWORD}),
        ("PATCH", "/users/bob", {"grants": [{"role": "admin", "tenant": "*", "integration_type": "*"}]}),
        ("PUT", "/users/me/password", {"old": PASSWORD, "new": NEW_PASSWORD}),
    ]
    for method, path, document in requests:
        reply = await app.request(method, path, token=narrow, json=document)
        assert (reply.status_code, reply.json()["code"]) == (403, "not-allowed"), (method, path, document)
    users = (await app.request("GET", "/users", token=narrow)).json()["users"]
    assert [(user["login"], user["grants"]) for user in users if user["login"] != "ada"] == [("bob", [])]
    # It can still disable a user, for example during an attack.
    assert (await app.request("PATCH", "/users/bob", token=narrow, json={"disabled": True})).status_code == 200


async def test_disabling_a_user_suspends_its_tokens_at_once(app: RunningApp) -> None:
    admin = await app.create_token("ada", *ADMIN)
    session, worker = (
        await app.create_token("bob", ("reader", "*", "*")),
        await app.create_token("bob", token_grants=ADMIN),
    )
    assert (await app.request("PATCH", "/users/bob", token=admin, json={"disabled": True})).json()["disabled"]
    assert [await is_valid(app, token) for token in (session, worker)] == [False, False]
    await app.request("PATCH", "/users/bob", token=admin, json={"disabled": False})
    assert [await is_valid(app, token) for token in (session, worker)] == [False, True]


async def test_revoked_grants_take_effect_at_once(app: RunningApp) -> None:
    admin, bob = await app.create_token("ada", *ADMIN), await app.create_token("bob", ("editor", "acme", "*"))
    assert (await app.save(bob, {"a": 1})).status_code == 200
    grant = {"role": "viewer", "tenant": "acme", "integration_type": "*"}
    await app.request("PATCH", "/users/bob", token=admin, json={"grants": [grant]})
    assert (await app.save(bob, {"a": 2})).status_code == 403
    await app.request("PATCH", "/users/bob", token=admin, json={"grants": []})
    assert (await app.save(bob, {"a": 3})).status_code == 404


async def test_an_admin_can_set_a_password_and_remove_a_user(app: RunningApp) -> None:
    admin, bob = await app.create_token("ada", *ADMIN), await app.create_token("bob")
    await app.request("PATCH", "/users/bob", token=admin, json={"password": NEW_PASSWORD})
    assert not await is_valid(app, bob)
    session = (await log_in(app, "bob", NEW_PASSWORD))["token"]
    assert (await app.request("DELETE", "/users/bob", token=admin)).status_code == 200
    assert not await is_valid(app, session)
    assert (await app.request("GET", "/users/bob", token=admin)).status_code == 404
    last = await app.request("DELETE", "/users/ada", token=admin)
    assert (last.status_code, last.json()["code"]) == (409, "last-admin")


async def test_a_service_token_is_returned_once_and_limited_by_its_grants(app: RunningApp) -> None:
    admin = await app.create_token("ada", *ADMIN)
    grant = {"role": "reader", "tenant": "acme", "integration_type": "*"}
    added = await app.request("POST", "/tokens", token=admin, json={"label": "worker", "grants": [grant]})
    token = added.json()["token"]
    await app.save(admin, {"password": NEW_PASSWORD})
    assert (await app.read(token)).json()["configuration"]["password"] == NEW_PASSWORD
    assert (await app.save(token, {"a": 1})).status_code == 403
    listed = await app.request("GET", "/tokens", token=admin)
    assert token not in listed.text
    assert [(t["label"], t["is_session"]) for t in listed.json()["tokens"]] == [("test", True), ("worker", False)]
    revoked = await app.request("DELETE", f"/tokens/{added.json()['id']}", token=admin)
    assert revoked.status_code == 200
    assert (await app.read(token)).status_code == 401


async def test_only_admins_create_tokens_for_service_accounts(app: RunningApp) -> None:
    admin, bob = await app.create_token("ada", *ADMIN), await app.create_token("bob", ("editor", "acme", "*"))
    grant = {"role": "reader", "tenant": "*", "integration_type": "*"}
    await app.request("POST", "/user", token=admin, json={"login": "robot", "grants": [grant]})
    added = await app.request("POST", "/tokens", token=admin, json={"label": "robot's", "login": "robot"})
    assert added.json()["login"] == "robot"
    assert (await app.request("POST", "/tokens", token=bob, json={"label": "x", "login": "robot"})).status_code == 403
    unknown = await app.request("POST", "/tokens", token=admin, json={"label": "x", "login": "nobody"})
    assert unknown.status_code == 404


async def test_an_expired_token_is_invalid_and_deleted(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await app.create_token("ada", *ADMIN)
    added = await app.request("POST", "/tokens", token=admin, json={"label": "short", "ttl_seconds": 60})
    token = added.json()["token"]
    assert await is_valid(app, token)
    clock = app.process.identity.tokens._clock
    for part in (app.process.identity.tokens, app.process.identity.authenticator):
        monkeypatch.setattr(part, "_clock", lambda: clock() + 61_000_000)
    app.process.changes.subscriber.clear_caches()
    assert not await is_valid(app, token)
    await app.process.identity.tokens.delete_expired()
    assert len((await app.request("GET", "/tokens", token=admin)).json()["tokens"]) == 1


async def test_the_old_contract_still_works(app: RunningApp) -> None:
    first = await app.request("POST", "/user", json={"login": "ada", "password": PASSWORD})
    assert first.json() == {"user_id": 1}
    reply = await app.request("GET", "/login", params={"login": "ada", "password": PASSWORD})
    token = reply.json()["token"]
    assert reply.headers["deprecation"].startswith("@")
    document = {"tenant": "acme", "integration_type": "crm", "configuration": {"a": 1}, "token": token}
    saved = await app.request("POST", "/config", json=document)
    assert saved.json()["message"] == "Config 'acme : crm' is created"
    assert saved.headers["deprecation"]
    params = {"tenant": "acme", "integration_type": "crm", "token": token}
    read = await app.request("GET", "/config", params=params)
    assert (read.json()["configuration"], "deprecation" in read.headers) == ({"a": 1}, True)
    added = await app.request("POST", "/user", json={"login": "bob", "password": NEW_PASSWORD, "token": token})
    assert added.json() == {"user_id": 2}
    assert "deprecation" not in (await app.read(token, type_="crm")).headers


async def test_a_request_with_two_credentials_is_rejected(app: RunningApp) -> None:
    token = await app.create_token("ada", *ADMIN)
    params = {"tenant": "acme", "integration_type": "crm", "token": token}
    both = await app.request("GET", "/config", params=params, token=token)
    assert (both.status_code, both.json()["code"]) == (400, "two-credentials")
    document = {"tenant": "acme", "integration_type": "crm", "configuration": {"a": 1}, "token": token}
    assert (await app.request("POST", "/config", json=document, token=token)).status_code == 400


async def test_the_old_contract_can_be_disabled(tmp_path: Path) -> None:
    async with start_app(build_settings(tmp_path / "data", None, old_contract=False)) as app:
        token = await app.create_token("ada", *ADMIN)
        params = {"tenant": "acme", "integration_type": "crm", "token": token}
        assert (await app.request("GET", "/config", params=params)).status_code == 401
        old = await app.request("GET", "/login", params={"login": "ada", "password": PASSWORD})
        assert old.status_code == 405


async def test_health_reports_draining_and_an_unavailable_database(sqlite_app: RunningApp) -> None:
    assert (await sqlite_app.request("GET", "/health/ready")).status_code == 200
    sqlite_app.process.draining.is_draining = True
    draining = await sqlite_app.request("GET", "/health/ready")
    assert (draining.status_code, draining.json()["reasons"][0]) == (503, "draining")
    await sqlite_app.process.stores.close()
    unavailable = await sqlite_app.request("GET", "/health/ready")
    assert (unavailable.status_code, unavailable.json()["status"]) == (503, "unavailable")
    assert (await sqlite_app.request("GET", "/health/live")).status_code == 200
    saved = await sqlite_app.request("GET", "/tokens", token=token_format.generate_token())
    assert (saved.status_code, saved.json()["code"], saved.headers["retry-after"]) == (503, "store-unavailable", "1")


async def test_a_bug_is_reported_as_an_internal_error_without_details(
    sqlite_app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await sqlite_app.create_token("ada", *ADMIN)
    monkeypatch.setattr(sqlite_app.process.reads.reader, "_cache", None)
    reply = await sqlite_app.read(token)
    assert (reply.status_code, reply.json()["code"]) == (500, "internal-error")
    assert "NoneType" not in reply.text
    monkeypatch.setattr(sqlite_app.process.identity.users, "_users", None)
    assert (await sqlite_app.request("GET", "/users", token=token)).json()["code"] == "internal-error"


async def test_a_login_during_a_password_change_gets_no_valid_session(app: RunningApp) -> None:
    admin = await app.create_token("root", *ADMIN)
    await app.add_user("ada", ("reader", "*", "*"))
    for old, new in ((PASSWORD, NEW_PASSWORD), (NEW_PASSWORD, make_canary("password"))):
        document = {"login": "ada", "password": old}
        logins = [asyncio.create_task(app.request("POST", "/login", json=document)) for _ in range(3)]
        await asyncio.sleep(0.02)
        changed = await app.request("PATCH", "/users/ada", token=admin, json={"password": new})
        assert changed.status_code == 200
        tokens = [reply.json().get("token") for reply in await asyncio.gather(*logins)]
        assert not any([await is_valid(app, token) for token in tokens if token])


async def test_a_login_of_a_user_who_is_removed_meanwhile_does_not_crash(app: RunningApp) -> None:
    admin = await app.create_token("root", *ADMIN)
    for _ in range(3):
        await app.add_user("ada")
        login_task = asyncio.create_task(app.request("POST", "/login", json={"login": "ada", "password": PASSWORD}))
        await asyncio.sleep(0.02)
        assert (await app.request("DELETE", "/users/ada", token=admin)).status_code == 200
        assert (await login_task).status_code in (200, 401)


async def test_a_login_rejected_as_busy_does_not_count_as_a_failure(app: RunningApp) -> None:
    await app.add_user("ada", *ADMIN)
    hasher = app.process.hasher
    hasher.queue.taken = 1_000
    for _ in range(7):
        reply = await app.request("POST", "/login", json={"login": "ada", "password": PASSWORD})
        assert (reply.status_code, reply.json()["code"]) == (503, "busy")
    hasher.queue.taken = 0
    await log_in(app, "ada")


async def test_a_caller_reads_itself_its_token_and_its_permissions(app: RunningApp) -> None:
    grants = [("editor", "acme", "*"), ("viewer", "*", "crm")]
    narrow = await app.create_token("ada", *grants, token_grants=[("reader", "*", "c*")])
    found = (await app.request("GET", "/users/me", token=narrow)).json()
    assert (found["login"], found["admin"], found["service_account"]) == ("ada", False, False)
    assert [grant["role"] for grant in found["grants"]] == ["editor", "viewer"]
    assert found["token"]["is_session"] is False
    assert found["token"]["grants"] == [{"role": "reader", "tenant": "*", "integration_type": "c*"}]
    assert found["token"]["expires_at"].endswith("Z")
    assert found["permissions"] == [
        {"role": "reader", "tenant": "acme", "integration_type": "c*"},
        {"role": "viewer", "tenant": "*", "integration_type": "crm"},
    ]
    session = (await app.request("GET", "/users/me", token=await app.create_token("ada"))).json()
    assert session["token"]["is_session"] is True
    assert session["permissions"] == session["grants"] == found["grants"]
    assert (await app.request("GET", "/users/me")).status_code == 401
