"""`/config` over HTTP, as docs/reference/api.md says: merges, entity tags, preconditions, retries and masks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from confide.crypto.errors import DecryptionFailed
from confide.crypto.model import EncryptionContext
from confide.names import ConfigKey
from confide.server.settings import Settings
from support.app import ADMIN, TYPE, RunningApp, start_app
from support.canaries import make_canary

CONFIGURATION = {
    "username": "acme_user",
    "password": make_canary("value"),
    "wsdl_urls": {"session_url": "https://session.manager.svc", "booking_url": "https://booking.manager.svc"},
}


class ConfigClient:
    """A client of an editor, for one config."""

    def __init__(self, app: RunningApp, token: str) -> None:
        self.app = app
        self.token = token

    async def save(self, configuration: Any, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.app.save(self.token, configuration, headers=sent)

    async def replace(self, configuration: Any) -> Any:
        document = {"tenant": "acme", "integration_type": TYPE, "configuration": configuration}
        return await self.app.request("PUT", "/config", token=self.token, json=document)

    async def delete(self, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        params = {"tenant": "acme", "integration_type": TYPE}
        return await self.app.request("DELETE", "/config", token=self.token, params=params, headers=sent)

    async def read(self, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.app.read(self.token, headers=sent)

    async def read_configuration(self) -> Any:
        return (await self.read()).json()["configuration"]


@pytest.fixture
async def client(app: RunningApp) -> ConfigClient:
    return ConfigClient(app, await app.create_token("ed", ("editor", "acme", "*")))


async def test_a_config_is_created_updated_and_read_with_the_responses_of_the_first_contract(
    client: ConfigClient,
) -> None:
    created = await client.save(CONFIGURATION)
    assert created.status_code == 200
    assert created.json() == {
        "message": "Config 'acme : flight-information-system' is created",
        "tenant": "acme",
        "integration_type": TYPE,
        "version": 1,
    }
    updated = await client.save({"wsdl_urls": {"session_url": "https://new.svc", "booking_url": None}})
    assert updated.json()["message"] == "Config 'acme : flight-information-system' is updated"
    reply = await client.read()
    assert reply.json() == {
        "tenant": "acme",
        "integration_type": TYPE,
        "configuration": CONFIGURATION | {"wsdl_urls": {"session_url": "https://new.svc"}},
    }
    assert (reply.headers["etag"], reply.headers["config-version"]) == ('"2"', "2")
    assert reply.headers["cache-control"] == "no-store"


async def test_a_save_without_a_change_appends_no_version(client: ConfigClient) -> None:
    await client.save(CONFIGURATION)
    for again in (CONFIGURATION, {}, dict(reversed(CONFIGURATION.items()))):
        reply = await client.save(again)
        assert reply.json()["message"] == "Config 'acme : flight-information-system' is unchanged"
        assert reply.json()["version"] == 1
    assert (await client.replace(CONFIGURATION)).json()["version"] == 1
    assert (await client.save({"n": 1})).json()["version"] == 2
    assert (await client.save({"n": 1.0})).json()["version"] == 3
    assert (await client.save({"n": True})).json()["version"] == 4


async def test_the_first_save_of_an_empty_configuration_creates_version_1(client: ConfigClient) -> None:
    reply = await client.save({})
    assert (reply.json()["version"], await client.read_configuration()) == (1, {})
    assert (await client.save({"p": {"q": {"r": None}}})).json()["version"] == 2
    assert await client.read_configuration() == {"p": {"q": {}}}


async def test_a_replacement_replaces_the_whole_configuration(client: ConfigClient) -> None:
    await client.save(CONFIGURATION)
    assert (await client.replace({"only": None})).json()["version"] == 2
    assert await client.read_configuration() == {"only": None}


async def test_a_deleted_config_reads_as_missing_and_its_version_numbers_continue(client: ConfigClient) -> None:
    missing = await client.read()
    await client.save(CONFIGURATION)
    deleted = await client.delete()
    assert (deleted.json()["message"].rsplit(" ", 1)[1], deleted.json()["version"]) == ("retired", 2)
    gone = await client.read()
    assert (gone.status_code, gone.content) == (404, missing.content)
    assert (await client.delete()).status_code == 404
    again = await client.save({"a": 1})
    assert again.json()["message"].endswith("is created")
    assert again.json()["version"] == 3
    assert await client.read_configuration() == {"a": 1}


async def test_an_entity_tag_from_before_a_deletion_never_matches_again(client: ConfigClient) -> None:
    tags = []
    for _ in range(5):
        tags.append((await client.save({"a": 1})).headers["etag"])
        await client.delete()
    await client.save({"a": 1})
    for tag in tags:
        assert (await client.save({"a": 2}, If_Match=tag)).status_code == 412
    assert await client.read_configuration() == {"a": 1}


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
async def test_a_precondition_is_checked_before_anything_else_of_a_save(
    client: ConfigClient, headers: dict[str, str], status: int
) -> None:
    await client.save({"a": 1})
    for change in ({"a": 2}, {"a": 1}):
        reply = await client.save(change, **headers)
        assert reply.status_code == status
        if status == 412:
            assert reply.headers["etag"] == '"1"'
            assert reply.json()["code"] == "version-conflict"
            assert await client.read_configuration() == {"a": 1}
        if status == 200:
            break


async def test_preconditions_on_a_missing_or_deleted_config(client: ConfigClient) -> None:
    assert (await client.save({"a": 1}, If_Match="*")).status_code == 412
    assert (await client.delete(If_Match='"1"')).status_code == 412
    assert (await client.save({"a": 1}, If_None_Match="*")).status_code == 200
    assert (await client.delete(If_Match='"2"')).status_code == 412
    assert (await client.delete(If_Match='"1"')).status_code == 200
    assert (await client.save({"a": 1}, If_Match='"2"')).status_code == 412
    assert (await client.save({"a": 1}, If_None_Match="*")).status_code == 200


async def test_a_read_with_the_current_entity_tag_gets_304_without_a_body(client: ConfigClient) -> None:
    await client.save(CONFIGURATION)
    for known in ('"1"', 'W/"1"', '"9", "1"', "*"):
        reply = await client.read(If_None_Match=known)
        assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", '"1"')
    assert (await client.read(If_None_Match='"2"')).status_code == 200
    assert (await client.read(If_None_Match='"1m"')).status_code == 200
    assert (await client.read(If_Match='"2"')).status_code == 412


async def test_one_of_32_saves_with_the_same_entity_tag_succeeds(client: ConfigClient) -> None:
    await client.save({"a": 0})
    replies = await asyncio.gather(*(client.save({"a": n + 1}, If_Match='"1"') for n in range(32)))
    assert sorted(reply.status_code for reply in replies) == [200] + [412] * 31
    assert (await client.read()).headers["config-version"] == "2"


async def test_a_retry_gets_the_first_response_and_is_saved_once(client: ConfigClient) -> None:
    first = await client.save({"a": 1}, Idempotency_Key="k1")
    await client.save({"a": 2})
    again = await client.save({"a": 1}, Idempotency_Key="k1", If_Match='"77"')
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await client.read_configuration() == {"a": 2}
    other = await client.save({"a": 9}, Idempotency_Key="k1")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_a_retry_of_an_unchanged_save_gets_the_first_response_too(client: ConfigClient) -> None:
    await client.save({"a": 1})
    assert (await client.save({"a": 1}, Idempotency_Key="k")).json()["version"] == 1
    await client.save({"a": 2})
    again = await client.save({"a": 1}, Idempotency_Key="k")
    assert again.json()["message"].endswith("is unchanged")
    assert await client.read_configuration() == {"a": 2}


async def test_concurrent_retries_are_saved_once(client: ConfigClient) -> None:
    replies = await asyncio.gather(*(client.save({"a": 1}, Idempotency_Key="k") for _ in range(16)))
    assert {reply.json()["version"] for reply in replies} == {1}
    assert sum("idempotency-replayed" not in reply.headers for reply in replies) == 1


async def test_an_error_is_not_recorded_and_a_deletion_can_be_retried(client: ConfigClient) -> None:
    assert (await client.save({"password": "********"}, Idempotency_Key="k")).status_code == 422
    assert (await client.save({"a": 1}, Idempotency_Key="k")).status_code == 200
    assert (await client.delete(Idempotency_Key="gone")).json()["version"] == 2
    assert (await client.delete(Idempotency_Key="gone")).json()["version"] == 2


async def test_idempotency_keys_of_different_users_are_independent(client: ConfigClient) -> None:
    await client.save({"a": 1}, Idempotency_Key="k")
    other = ConfigClient(client.app, await client.app.create_token("bob", ("editor", "acme", "*")))
    reply = await other.save({"b": 1}, Idempotency_Key="k")
    assert (reply.status_code, reply.json()["version"]) == (200, 2)


async def test_a_viewer_gets_masks_and_a_different_entity_tag_and_masks_cannot_be_saved(client: ConfigClient) -> None:
    await client.save(CONFIGURATION | {"tokens": [1], "nested": [{"api_key": 5}]})
    viewer = await client.app.create_token("vic", ("viewer", "acme", "*"))
    reply = await client.app.read(viewer)
    seen = reply.json()["configuration"]
    assert (seen["password"], seen["tokens"], seen["nested"]) == ("********", "********", [{"api_key": "********"}])
    assert seen["username"] == "acme_user"
    assert reply.headers["etag"] == '"1m"'
    assert (await client.app.read(viewer, headers={"If-None-Match": '"1"'})).status_code == 200
    assert (await client.app.read(viewer, headers={"If-None-Match": '"1m"'})).status_code == 304
    back = await client.save(seen)
    assert (back.status_code, back.json()["code"]) == (422, "mask-sent-back")
    assert [violation["pointer"] for violation in back.json()["errors"]] == [
        "/configuration/password",
        "/configuration/tokens",
        "/configuration/nested/0/api_key",
    ]
    assert (await client.save({"a": 1}, If_Match='"1m"')).status_code == 200


async def test_a_list_has_keys_versions_and_times_and_no_configurations(client: ConfigClient) -> None:
    admin = await client.app.create_token("root", *ADMIN)
    for tenant, type_ in (("acme", "a"), ("acme", "b"), ("globex", "a"), ("acme-2", "c")):
        await client.app.save(admin, CONFIGURATION, tenant=tenant, type_=type_)
    visible = (await client.app.request("GET", "/configs", token=client.token)).json()
    assert [(c["tenant"], c["integration_type"], c["version"]) for c in visible["configs"]] == [
        ("acme", "a", 1),
        ("acme", "b", 1),
    ]
    assert visible["configs"][0].keys() == {"tenant", "integration_type", "version", "saved_at", "last_read_at"}
    assert visible["next"] is None
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 1, "tenant": "acme*"}
    while True:
        page = (await client.app.request("GET", "/configs", token=admin, params=params)).json()
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
async def test_an_invalid_parameter_of_a_list_is_rejected(
    client: ConfigClient, query: str, status: int, code: str
) -> None:
    reply = await client.app.request("GET", f"/configs?{query}", token=client.token)
    assert (reply.status_code, reply.json()["code"]) == (status, code)


@pytest.fixture
async def two_apps(settings: Settings) -> AsyncIterator[tuple[RunningApp, RunningApp]]:
    """Start two applications on one database, as two processes would."""
    async with start_app(settings) as one, start_app(settings) as other:
        yield one, other


async def test_no_merge_of_two_processes_into_one_config_is_lost(two_apps: tuple[RunningApp, RunningApp]) -> None:
    token = await two_apps[0].create_token("ed", ("editor", "acme", "*"))
    saves = [app.save(token, {f"{number}-{n}": n}) for n in range(40) for number, app in enumerate(two_apps)]
    replies = await asyncio.gather(*saves)
    assert [reply.status_code for reply in replies] == [200] * 80
    assert sorted(reply.json()["version"] for reply in replies) == list(range(1, 81))
    whole = await two_apps[0].read(token, headers={"Config-Min-Version": "80"})
    assert len(whole.json()["configuration"]) == 80


async def test_a_destroyed_tenant_is_deleted_and_can_be_used_again(client: ConfigClient) -> None:
    admin = await client.app.create_token("root", *ADMIN)
    await client.save(CONFIGURATION)
    await client.app.save(admin, CONFIGURATION, tenant="globex")
    wrong = await client.app.request("DELETE", "/tenants/acme", token=admin, params={"confirm": "globex"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "confirm-wrong")
    done = await client.app.request("DELETE", "/tenants/acme", token=admin, params={"confirm": "acme"})
    assert done.json() == {"tenant": "acme", "retired": 1}
    assert (await client.read()).status_code == 404
    assert (await client.app.read(admin, tenant="globex")).status_code == 200
    assert (
        await client.app.request("DELETE", "/tenants/unknown", token=admin, params={"confirm": "unknown"})
    ).status_code == 404
    again = await client.save({"a": 1})
    assert (again.json()["version"], await client.read_configuration()) == (3, {"a": 1})
    destroyed = (client.app.settings.data / "destroyed.keys").read_text().split()
    assert len(destroyed) == 1


async def test_an_idempotency_key_expires_after_a_day(client: ConfigClient, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = client.app.process.configs.writer
    assert (await client.save({"a": 1}, Idempotency_Key="k")).json()["version"] == 1
    clock = configs._clock
    monkeypatch.setattr(configs, "_clock", lambda: clock() + 86_401 * 1_000_000)
    again = await client.save({"a": 2}, Idempotency_Key="k")
    assert (again.status_code, again.json()["version"]) == (200, 2)
    assert (await client.save({"a": 2}, Idempotency_Key="k")).headers["idempotency-replayed"] == "true"


async def test_a_destroyed_data_key_decrypts_nothing_in_another_process(
    two_apps: tuple[RunningApp, RunningApp],
) -> None:
    one, other = two_apps
    token = await one.create_token("root", *ADMIN)
    await one.save(token, {"a": 1})
    assert (await other.read(token)).status_code == 200
    stored = await other.process.stores.configs.read(ConfigKey("acme", TYPE))
    assert stored is not None
    await one.request("DELETE", "/tenants/acme", token=token, params={"confirm": "acme"})
    # Workers of one machine share a folder and check it for destroyed keys ten times a second.
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
async def test_an_error_names_the_invalid_place(
    client: ConfigClient, document: dict[str, Any], code: str, place: str
) -> None:
    reply = await client.app.request("POST", "/config", token=client.token, json=document)
    assert (reply.status_code, reply.json()["code"]) == (422, code)
    assert [violation["pointer"] for violation in reply.json()["errors"]] == [place]
