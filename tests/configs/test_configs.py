"""`/config` over HTTP: merging, tags, conditions, saves, retries, masks and lists, as docs/reference/api.md says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from confide.crypto.errors import DecryptionFailed
from confide.crypto.model import EncryptionContext
from confide.names import Key
from confide.server.settings import Settings
from support.app import ADMIN, TYPE, RunningApp, start_app
from support.canaries import canary

FIS = {
    "username": "acme_user",
    "password": canary("value"),
    "wsdl_urls": {"session_url": "https://session.manager.svc", "booking_url": "https://booking.manager.svc"},
}


class Desk:
    """An editor at work on one config."""

    def __init__(self, app: RunningApp, token: str) -> None:
        self.app = app
        self.token = token

    async def save(self, configuration: Any, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.app.save(self.token, configuration, headers=named)

    async def replace(self, configuration: Any) -> Any:
        document = {"tenant": "acme", "integration_type": TYPE, "configuration": configuration}
        return await self.app.ask("PUT", "/config", token=self.token, json=document)

    async def retire(self, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        params = {"tenant": "acme", "integration_type": TYPE}
        return await self.app.ask("DELETE", "/config", token=self.token, params=params, headers=named)

    async def read(self, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.app.read(self.token, headers=named)

    async def configuration(self) -> Any:
        return (await self.read()).json()["configuration"]


@pytest.fixture
async def desk(app: RunningApp) -> Desk:
    return Desk(app, await app.token("ed", ("editor", "acme", "*")))


async def test_a_config_is_created_updated_and_read_back_as_the_old_contract_says(desk: Desk) -> None:
    created = await desk.save(FIS)
    assert created.status_code == 200
    assert created.json() == {
        "message": "Config 'acme : flight-information-system' is created",
        "tenant": "acme",
        "integration_type": TYPE,
        "version": 1,
    }
    updated = await desk.save({"wsdl_urls": {"session_url": "https://new.svc", "booking_url": None}})
    assert updated.json()["message"] == "Config 'acme : flight-information-system' is updated"
    reply = await desk.read()
    assert reply.json() == {
        "tenant": "acme",
        "integration_type": TYPE,
        "configuration": FIS | {"wsdl_urls": {"session_url": "https://new.svc"}},
    }
    assert (reply.headers["etag"], reply.headers["config-version"]) == ('"2"', "2")
    assert reply.headers["cache-control"] == "no-store"


async def test_a_save_that_changes_nothing_makes_no_version(desk: Desk) -> None:
    await desk.save(FIS)
    for again in (FIS, {}, dict(reversed(FIS.items()))):
        reply = await desk.save(again)
        assert reply.json()["message"] == "Config 'acme : flight-information-system' is unchanged"
        assert reply.json()["version"] == 1
    assert (await desk.replace(FIS)).json()["version"] == 1
    assert (await desk.save({"n": 1})).json()["version"] == 2
    assert (await desk.save({"n": 1.0})).json()["version"] == 3
    assert (await desk.save({"n": True})).json()["version"] == 4


async def test_the_first_save_of_nothing_creates_version_1(desk: Desk) -> None:
    reply = await desk.save({})
    assert (reply.json()["version"], await desk.configuration()) == (1, {})
    assert (await desk.save({"p": {"q": {"r": None}}})).json()["version"] == 2
    assert await desk.configuration() == {"p": {"q": {}}}


async def test_a_replacement_puts_the_whole_in_place_of_what_is_there(desk: Desk) -> None:
    await desk.save(FIS)
    assert (await desk.replace({"only": None})).json()["version"] == 2
    assert await desk.configuration() == {"only": None}


async def test_a_retired_config_reads_as_missing_and_its_numbers_go_on(desk: Desk) -> None:
    missing = await desk.read()
    await desk.save(FIS)
    retired = await desk.retire()
    assert (retired.json()["message"], retired.json()["version"]) == (
        "Config 'acme : flight-information-system' is retired",
        2,
    )
    gone = await desk.read()
    assert (gone.status_code, gone.content) == (404, missing.content)
    assert (await desk.retire()).status_code == 404
    again = await desk.save({"a": 1})
    assert again.json()["message"].endswith("is created")
    assert again.json()["version"] == 3
    assert await desk.configuration() == {"a": 1}


async def test_no_tag_of_an_earlier_life_ever_holds_again(desk: Desk) -> None:
    tags = []
    for _ in range(5):
        tags.append((await desk.save({"a": 1})).headers["etag"])
        await desk.retire()
    await desk.save({"a": 1})
    for tag in tags:
        assert (await desk.save({"a": 2}, If_Match=tag)).status_code == 412
    assert await desk.configuration() == {"a": 1}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If_Match": '"1"'}, 200),
        ({"If_Match": "*"}, 200),
        ({"If_Match": '"2"'}, 412),
        ({"If_None_Match": "*"}, 412),
        ({"If_None_Match": '"1"'}, 400),
        ({"If_Match": "1"}, 400),
    ],
)
async def test_a_condition_on_a_save_is_judged_first(desk: Desk, headers: dict[str, str], status: int) -> None:
    await desk.save({"a": 1})
    for change in ({"a": 2}, {"a": 1}):
        reply = await desk.save(change, **headers)
        assert reply.status_code == status
        if status == 412:
            assert reply.headers["etag"] == '"1"'
            assert reply.json()["code"] == "version-conflict"
            assert await desk.configuration() == {"a": 1}
        if status == 200:
            break


async def test_conditions_on_what_is_missing_or_retired(desk: Desk) -> None:
    assert (await desk.save({"a": 1}, If_Match="*")).status_code == 412
    assert (await desk.retire(If_Match='"1"')).status_code == 412
    assert (await desk.save({"a": 1}, If_None_Match="*")).status_code == 200
    assert (await desk.retire(If_Match='"2"')).status_code == 412
    assert (await desk.retire(If_Match='"1"')).status_code == 200
    assert (await desk.save({"a": 1}, If_Match='"2"')).status_code == 412
    assert (await desk.save({"a": 1}, If_None_Match="*")).status_code == 200


async def test_a_known_tag_is_answered_304_without_a_body(desk: Desk) -> None:
    await desk.save(FIS)
    for known in ('"1"', 'W/"1"', '"9", "1"', "*"):
        reply = await desk.read(If_None_Match=known)
        assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", '"1"')
    assert (await desk.read(If_None_Match='"2"')).status_code == 200
    assert (await desk.read(If_None_Match='"1m"')).status_code == 200
    assert (await desk.read(If_Match='"2"')).status_code == 412


async def test_of_32_with_one_tag_one_wins(desk: Desk) -> None:
    await desk.save({"a": 0})
    replies = await asyncio.gather(*(desk.save({"a": n + 1}, If_Match='"1"') for n in range(32)))
    assert sorted(reply.status_code for reply in replies) == [200] + [412] * 31
    assert (await desk.read()).headers["config-version"] == "2"


async def test_a_retry_is_told_the_same_and_done_once(desk: Desk) -> None:
    first = await desk.save({"a": 1}, Idempotency_Key="k1")
    await desk.save({"a": 2})
    again = await desk.save({"a": 1}, Idempotency_Key="k1", If_Match='"77"')
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await desk.configuration() == {"a": 2}
    other = await desk.save({"a": 9}, Idempotency_Key="k1")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_a_retry_of_what_changed_nothing_is_told_the_same_too(desk: Desk) -> None:
    await desk.save({"a": 1})
    assert (await desk.save({"a": 1}, Idempotency_Key="k")).json()["version"] == 1
    await desk.save({"a": 2})
    again = await desk.save({"a": 1}, Idempotency_Key="k")
    assert again.json()["message"].endswith("is unchanged")
    assert await desk.configuration() == {"a": 2}


async def test_many_retries_at_once_are_done_once(desk: Desk) -> None:
    replies = await asyncio.gather(*(desk.save({"a": 1}, Idempotency_Key="k") for _ in range(16)))
    assert {reply.json()["version"] for reply in replies} == {1}
    assert sum("idempotency-replayed" not in reply.headers for reply in replies) == 1


async def test_a_refusal_is_not_recorded_and_a_retired_config_may_be_retried(desk: Desk) -> None:
    assert (await desk.save({"password": "********"}, Idempotency_Key="k")).status_code == 422
    assert (await desk.save({"a": 1}, Idempotency_Key="k")).status_code == 200
    assert (await desk.retire(Idempotency_Key="gone")).json()["version"] == 2
    assert (await desk.retire(Idempotency_Key="gone")).json()["version"] == 2


async def test_the_same_key_of_another_principal_is_another_key(desk: Desk) -> None:
    await desk.save({"a": 1}, Idempotency_Key="k")
    other = Desk(desk.app, await desk.app.token("bob", ("editor", "acme", "*")))
    reply = await other.save({"b": 1}, Idempotency_Key="k")
    assert (reply.status_code, reply.json()["version"]) == (200, 2)


async def test_a_viewer_sees_masks_and_other_tags_and_sends_none_back(desk: Desk) -> None:
    await desk.save(FIS | {"tokens": [1], "nested": [{"api_key": 5}]})
    viewer = await desk.app.token("vic", ("viewer", "acme", "*"))
    reply = await desk.app.read(viewer)
    seen = reply.json()["configuration"]
    assert (seen["password"], seen["tokens"], seen["nested"]) == ("********", "********", [{"api_key": "********"}])
    assert seen["username"] == "acme_user"
    assert reply.headers["etag"] == '"1m"'
    assert (await desk.app.read(viewer, headers={"If-None-Match": '"1"'})).status_code == 200
    assert (await desk.app.read(viewer, headers={"If-None-Match": '"1m"'})).status_code == 304
    back = await desk.save(seen)
    assert (back.status_code, back.json()["code"]) == (422, "mask-sent-back")
    assert [violation["pointer"] for violation in back.json()["errors"]] == [
        "/configuration/password",
        "/configuration/tokens",
        "/configuration/nested/0/api_key",
    ]
    assert (await desk.save({"a": 1}, If_Match='"1m"')).status_code == 200


async def test_a_list_shows_keys_versions_and_times_and_no_bodies(desk: Desk) -> None:
    admin = await desk.app.token("root", *ADMIN)
    for tenant, type_ in (("acme", "a"), ("acme", "b"), ("globex", "a"), ("acme-2", "c")):
        await desk.app.save(admin, FIS, tenant=tenant, type_=type_)
    mine = (await desk.app.ask("GET", "/configs", token=desk.token)).json()
    assert [(c["tenant"], c["integration_type"], c["version"]) for c in mine["configs"]] == [
        ("acme", "a", 1),
        ("acme", "b", 1),
    ]
    assert mine["configs"][0].keys() == {"tenant", "integration_type", "version", "saved_at", "last_read_at"}
    assert mine["next"] is None
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 1, "tenant": "acme*"}
    while True:
        page = (await desk.app.ask("GET", "/configs", token=admin, params=params)).json()
        seen += [f"{c['tenant']}:{c['integration_type']}" for c in page["configs"]]
        if page["next"] is None:
            break
        params["after"] = page["next"]
    assert seen == ["acme:a", "acme:b", "acme-2:c"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("limit=0", 400, "malformed-parameter"),
        ("limit=1001", 400, "malformed-parameter"),
        ("limit=1e2", 400, "malformed-parameter"),
        ("after=nonsense", 400, "invalid-cursor"),
        ("after=a:b:c", 400, "invalid-cursor"),
        ("tenant=a*b", 422, "invalid-name"),
        ("nope=1", 400, "unknown-parameter"),
        ("limit=1&limit=2", 400, "duplicate-parameter"),
    ],
)
async def test_a_wrong_question_for_a_list_is_refused(desk: Desk, query: str, status: int, code: str) -> None:
    reply = await desk.app.ask("GET", f"/configs?{query}", token=desk.token)
    assert (reply.status_code, reply.json()["code"]) == (status, code)


@pytest.fixture
async def two_apps(settings: Settings) -> AsyncIterator[tuple[RunningApp, RunningApp]]:
    """Two processes' worth of parts on one store."""
    async with start_app(settings) as one, start_app(settings) as other:
        yield one, other


async def test_merges_of_two_processes_into_one_config_are_all_there(two_apps: tuple[RunningApp, RunningApp]) -> None:
    token = await two_apps[0].token("ed", ("editor", "acme", "*"))
    saves = [app.save(token, {f"{number}-{n}": n}) for n in range(40) for number, app in enumerate(two_apps)]
    replies = await asyncio.gather(*saves)
    assert [reply.status_code for reply in replies] == [200] * 80
    assert sorted(reply.json()["version"] for reply in replies) == list(range(1, 81))
    whole = await two_apps[0].read(token, headers={"Config-Min-Version": "80"})
    assert len(whole.json()["configuration"]) == 80


async def test_a_destroyed_tenant_is_gone_and_may_begin_again(desk: Desk) -> None:
    admin = await desk.app.token("root", *ADMIN)
    await desk.save(FIS)
    await desk.app.save(admin, FIS, tenant="globex")
    wrong = await desk.app.ask("DELETE", "/tenants/acme", token=admin, params={"confirm": "globex"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "confirm-wrong")
    done = await desk.app.ask("DELETE", "/tenants/acme", token=admin, params={"confirm": "acme"})
    assert done.json() == {"tenant": "acme", "retired": 1}
    assert (await desk.read()).status_code == 404
    assert (await desk.app.read(admin, tenant="globex")).status_code == 200
    assert (
        await desk.app.ask("DELETE", "/tenants/nobody", token=admin, params={"confirm": "nobody"})
    ).status_code == 404
    again = await desk.save({"a": 1})
    assert (again.json()["version"], await desk.configuration()) == (3, {"a": 1})
    destroyed = (desk.app.settings.data / "destroyed.keys").read_text().split()
    assert len(destroyed) == 1


async def test_a_key_of_yesterday_is_a_new_key_today(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = desk.app.process.configs.writer
    assert (await desk.save({"a": 1}, Idempotency_Key="k")).json()["version"] == 1
    clock = configs._clock
    monkeypatch.setattr(configs, "_clock", lambda: clock() + 86_401 * 1_000_000)
    again = await desk.save({"a": 2}, Idempotency_Key="k")
    assert (again.status_code, again.json()["version"]) == (200, 2)
    assert (await desk.save({"a": 2}, Idempotency_Key="k")).headers["idempotency-replayed"] == "true"


async def test_a_destroyed_key_opens_nothing_in_another_process_either(two_apps: tuple[RunningApp, RunningApp]) -> None:
    one, other = two_apps
    token = await one.token("root", *ADMIN)
    await one.save(token, {"a": 1})
    assert (await other.read(token)).status_code == 200
    stored = await other.process.stores.configs.read(Key("acme", TYPE))
    assert stored is not None
    await one.ask("DELETE", "/tenants/acme", token=token, params={"confirm": "acme"})
    # Two apps of a test have one folder, as workers of one machine have, and look at it ten times a second.
    await asyncio.sleep(0.11)
    with pytest.raises(DecryptionFailed):
        await other.process.encryption.decrypt(stored.body or b"", EncryptionContext(stored.key, 1, "saved"))


@pytest.mark.parametrize(
    ("document", "code", "place"),
    [
        ({"tenant": "a b", "integration_type": "crm", "configuration": {}}, "invalid-name", "/tenant"),
        ({"tenant": "acme", "integration_type": 1, "configuration": {}}, "invalid-name", "/integration_type"),
        (
            {"tenant": "acme", "integration_type": "crm", "configuration": [1]},
            "configuration-invalid",
            "/configuration",
        ),
        ({"tenant": "acme", "integration_type": "crm"}, "configuration-invalid", "/configuration"),
    ],
)
async def test_a_refusal_says_where(desk: Desk, document: dict[str, Any], code: str, place: str) -> None:
    reply = await desk.app.ask("POST", "/config", token=desk.token, json=document)
    assert (reply.status_code, reply.json()["code"]) == (422, code)
    assert [violation["pointer"] for violation in reply.json()["errors"]] == [place]
