"""Integration types over HTTP: active schemas, defaults, warnings, rejected saves and conformance."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from confide.integration_types.masking import MASK
from confide.integration_types.model import TypeDraft, TypeKind
from support.app import ADMIN, RunningApp
from support.canaries import make_canary

TYPE = "crm"
PATH = f"/integration-types/{TYPE}"
ADDRESS = {"tenant": "acme", "integration_type": TYPE}
SCHEMA = {
    "required": ["host", "key_word"],
    "properties": {
        "host": {"type": "string"},
        "key_word": {"type": "string", "writeOnly": True},
        "port": {"type": "integer", "default": 443},
    },
}
EXAMPLES = {
    path.stem: json.loads(path.read_text())
    for path in (Path(__file__).parents[2] / "docs" / "reference" / "types").glob("*.json")
}
SECRET = make_canary("typed")


class TypeClient:
    """Clients of an admin, an editor and a viewer, for one integration type."""

    def __init__(self, app: RunningApp, tokens: dict[str, str]) -> None:
        self.app, self.tokens = app, tokens

    async def put(self, schema: Any, *, params: Any = None, headers: Any = None, **more: Any) -> Any:
        body = {"schema": schema, **more}
        token = self.tokens["admin"]
        return await self.app.request("PUT", PATH, token=token, json=body, params=params, headers=headers or {})

    async def save(self, configuration: Any, *, method: str = "POST", tenant: str = "acme", params: Any = None) -> Any:
        body = {"tenant": tenant, "integration_type": TYPE, "configuration": configuration}
        return await self.app.request(method, "/config", token=self.tokens["editor"], json=body, params=params)

    async def get(self, path: str = "/config", *, role: str = "editor", headers: Any = None, **params: str) -> Any:
        params = {**ADDRESS, **params} if path.startswith("/config") else params
        return await self.app.request("GET", path, token=self.tokens[role], params=params, headers=headers or {})


@pytest.fixture
async def client(app: RunningApp) -> TypeClient:
    tokens = {"admin": await app.create_token("root", *ADMIN)}
    for role in ("editor", "viewer"):
        tokens[role] = await app.create_token(role, (role, "*", "*"))
    return TypeClient(app, tokens)


async def test_a_type_is_registered_read_listed_and_removed(client: TypeClient) -> None:
    created = await client.put(SCHEMA, mode="enforce", keep=7, note="the first")
    assert (created.status_code, created.json()["message"]) == (200, "Integration type 'crm' is created")
    read = await client.get(PATH)
    assert read.json() | {"saved_at": ""} == {
        "name": TYPE, "version": 1, "mode": "enforce", "keep": 7, "saved_at": "", "note": "the first", "schema": SCHEMA,
    }  # fmt: skip
    assert (await client.put(SCHEMA, mode="enforce", keep=7)).json()["message"].endswith("is unchanged")
    assert (await client.put(None, headers={"If-Match": '"7"'})).status_code == 412
    assert (await client.put(None, keep=8)).json() == {
        "message": "Integration type 'crm' is updated", "name": TYPE, "version": 2,
    }  # fmt: skip
    assert [one["name"] for one in (await client.get("/integration-types")).json()["types"]] == [TYPE]
    removed = await client.app.request("DELETE", PATH, token=client.tokens["admin"])
    assert removed.json()["version"] == 3
    assert (await client.get(PATH)).status_code == 404
    assert (await client.put(SCHEMA)).json()["version"] == 4, "version numbers continue"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"schema": {"type": "nothing"}}, 422, "schema-invalid"),
        ({"schema": {"$ref": "file:///etc/passwd"}}, 422, "schema-invalid"),
        ({"schema": True}, 422, "invalid-body"),
        ({"schema": {}, "keep": 0}, 422, "invalid-body"),
        ({"schema": {}, "keep": True}, 422, "invalid-body"),
        ({"schema": {}, "mode": "maybe"}, 422, "invalid-body"),
        ({"schema": {}, "note": "two\nlines"}, 422, "invalid-note"),
        ({"schema": {}, "more": 1}, 400, "unknown-member"),
        ([], 400, "not-an-object"),
    ],
)
async def test_an_invalid_type_is_rejected_and_not_stored(
    client: TypeClient, body: Any, status: int, code: str
) -> None:
    reply = await client.app.request("PUT", PATH, token=client.tokens["admin"], json=body)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert (await client.get(PATH)).status_code == 404


async def test_only_admins_change_a_type_and_only_callers_with_a_grant_see_it(client: TypeClient) -> None:
    assert (
        await client.app.request("PUT", PATH, token=client.tokens["editor"], json={"schema": {}})
    ).status_code == 403
    await client.put(SCHEMA)
    stranger = await client.app.create_token("stranger", ("editor", "acme", "billing"))
    assert (await client.app.request("GET", PATH, token=stranger)).status_code == 404
    assert (await client.app.request("GET", "/integration-types", token=stranger)).json() == {"types": []}


async def test_a_read_fills_in_defaults_and_the_entity_tag_has_the_version_of_the_type(client: TypeClient) -> None:
    await client.save({"host": "h", "key_word": SECRET})
    assert (await client.get()).headers["etag"] == '"1"'
    await client.put(SCHEMA)
    filled = await client.get()
    assert filled.json()["configuration"] == {"host": "h", "key_word": SECRET, "port": 443}
    assert filled.headers["etag"] == '"1.1"'
    stored = await client.get(defaults="off")
    assert (stored.json()["configuration"], stored.headers["etag"]) == ({"host": "h", "key_word": SECRET}, '"1.1d"')
    masked = await client.get(role="viewer")
    assert (masked.json()["configuration"]["key_word"], masked.headers["etag"]) == (MASK, '"1.1m"')
    assert (await client.get(role="viewer", defaults="off")).headers["etag"] == '"1.1md"'
    assert (await client.get(headers={"If-None-Match": '"1.1"'})).status_code == 304
    assert (await client.get(defaults="maybe")).json()["code"] == "malformed-parameter"
    await client.put({**SCHEMA, "properties": {**SCHEMA["properties"], "port": {"default": 8443}}})  # type: ignore[dict-item]
    assert (await client.get()).json()["configuration"]["port"] == 8443
    assert (await client.get(headers={"If-None-Match": '"1.1"'})).status_code == 200
    saved = await client.save({"host": "i"})
    assert saved.headers["etag"] == (await client.get()).headers["etag"] == '"2.2"'


async def test_a_member_that_becomes_secret_is_masked_at_once(client: TypeClient) -> None:
    await client.save({"host": SECRET})
    assert (await client.get(role="viewer")).json()["configuration"] == {"host": SECRET}
    await client.put({"properties": {"host": {"writeOnly": True}}})
    assert (await client.get(role="viewer")).json()["configuration"] == {"host": MASK}
    version = await client.get("/config/versions/1", role="viewer")
    assert version.json()["configuration"] == {"host": MASK}
    diff = await client.get("/config/diff", role="viewer", **{"from": "0", "to": "1"})
    assert diff.json()["added"] == {"/host": MASK}


async def test_another_process_uses_a_changed_type_within_a_second(client: TypeClient) -> None:
    from support.app import start_app  # noqa: PLC0415 - a second application

    await client.save({"host": "h"})
    async with start_app(client.app.settings) as other:
        read: Any = {"token": client.tokens["viewer"], "params": ADDRESS}
        assert (await other.request("GET", "/config", **read)).json()["configuration"] == {"host": "h"}
        await client.put({"properties": {"host": {"writeOnly": True}}})
        await asyncio.sleep(1.0)
        assert (await other.request("GET", "/config", **read)).json()["configuration"] == {"host": MASK}


async def test_violations_are_warnings_in_mode_warn(client: TypeClient) -> None:
    await client.put(SCHEMA)
    saved = await client.save({"host": 5})
    assert saved.status_code == 200
    assert sorted((one["pointer"], one["code"]) for one in saved.json()["warnings"]) == [
        ("/configuration/host", "type"),
        ("/configuration/key_word", "required"),
    ]
    assert "warnings" not in (await client.save({"host": "h", "key_word": "k"})).json()


async def test_mode_enforce_rejects_new_violations_and_warns_of_older_ones(client: TypeClient) -> None:
    await client.save({"host": 5})
    await client.put(SCHEMA, mode="enforce")
    refused = await client.save({"host": 6, "port": SECRET})
    assert (refused.status_code, refused.json()["code"]) == (422, "schema-broken")
    assert SECRET not in refused.text
    places = sorted(one["pointer"] for one in refused.json()["errors"])
    assert places == ["/configuration/host", "/configuration/port"]
    saved = await client.save({"comment": "c"})
    assert sorted(one["pointer"] for one in saved.json()["warnings"]) == [
        "/configuration/host",
        "/configuration/key_word",
    ]
    preview = await client.save({"host": 7}, params={"dry_run": "true"})
    assert preview.status_code == 422
    rollback = await client.app.request(
        "POST", "/config/rollback", token=client.tokens["editor"], json={**ADDRESS, "version": 1}
    )
    assert rollback.status_code == 200, "its violations are not new"
    assert (await client.save({"host": "h"}, method="PUT")).status_code == 200
    assert (await client.save({"port": 1}, tenant="new")).status_code == 422


async def test_conformance_lists_violating_configs_and_a_dry_run_those_of_a_draft(client: TypeClient) -> None:
    await client.put({"properties": {"host": {"type": "string"}}})
    for number in range(5):
        await client.save({"host": f"h{number}" if number % 2 else SECRET}, tenant=f"t{number}")
    await client.save({"host": 5}, tenant="odd")
    found = (await client.get(f"{PATH}/conformance", role="admin")).json()
    assert (found["checked"], found["broken"], found["next"]) == (6, 1, None)
    assert found["configs"] == [
        {"tenant": "odd", "integration_type": TYPE, "version": 1, "errors": found["configs"][0]["errors"]}
    ]
    assert found["configs"][0]["errors"][0] | {"detail": ""} == {"pointer": "/host", "code": "type", "detail": ""}
    stricter = {"properties": {"host": {"type": "string", "maxLength": 3}}}
    preview = await client.put(stricter, params={"dry_run": "true"})
    assert preview.json()["broken"] == 4
    assert SECRET not in preview.text
    assert (await client.put(stricter, params={"dry_run": "true"}, headers={"If-Match": '"7"'})).status_code == 412
    assert (await client.get(PATH)).json()["version"] == 1
    rest = (await client.get(f"{PATH}/conformance", role="admin", after="odd:crm")).json()
    assert (rest["checked"], rest["next"]) == (5, None)
    stream = await client.get(f"{PATH}/conformance", role="admin", headers={"Accept": "text/event-stream"})
    assert stream.headers["content-type"] == "text/event-stream"
    name, data = stream.text.strip().split("\n")[-2:]
    assert name == "event: result"
    assert json.loads(data.removeprefix("data: ")) == found
    assert (await client.get("/integration-types/none/conformance", role="admin")).status_code == 404


DRAFT_07 = "http://json-schema.org/draft-07/schema#"


async def test_a_default_that_violates_its_schema_is_a_warning_at_registration(client: TypeClient) -> None:
    schema = {"$schema": DRAFT_07, "properties": {"method": {"type": "object", "default": "CDC"}, "n": {"default": 1}}}
    preview = (await client.put(schema, params={"dry_run": "true"})).json()
    saved = await client.put(schema, mode="enforce")
    again = await client.put(schema, mode="enforce")
    assert saved.status_code == 200
    assert [one["pointer"] for one in saved.json()["warnings"]] == ["/schema/properties/method/default"]
    assert saved.json()["warnings"] == again.json()["warnings"] == preview["warnings"]
    assert (await client.save({"host": "h"})).status_code == 200, "the default does not break a save"
    assert (await client.get()).json()["configuration"] == {"host": "h", "n": 1}
    assert "warnings" not in (await client.put({"properties": {"n": {"default": 1}}})).json()


@pytest.mark.parametrize("name", ["api_key", "token1"])
async def test_the_response_says_that_the_name_made_a_member_secret(client: TypeClient, name: str) -> None:
    schema = {"properties": {name: {"type": "string", "default": SECRET}}}
    for params in ({}, {"dry_run": "true"}):
        reply = await client.put(schema, params=params)
        assert (reply.status_code, reply.json()["code"]) == (422, "schema-invalid")
        assert "name of this member" in reply.json()["errors"][0]["detail"]
        assert SECRET not in reply.text
    assert (await client.put({"properties": {name: {"type": "string", "default": ""}}})).status_code == 200


async def test_a_dry_run_lists_the_values_that_a_draft_masks_or_shows(client: TypeClient) -> None:
    await client.put({"properties": {"credentials": {}, "plain": {}}})
    for number in range(3):
        servers = [{"zone": SECRET, "name": "n"}] * (number + 1)
        configuration = {"credentials": {"id": "i", "key_word": SECRET}, "plain": SECRET, "servers": servers}
        await client.save(configuration, tenant=f"t{number}")
    await client.save({"other": 1}, tenant="other")
    draft = {
        "properties": {
            "credentials": {"properties": {"id": {}, "key_word": {"format": "password"}}},
            "plain": {"airbyte_secret": True},
            "servers": {"items": {"properties": {"zone": {"writeOnly": True}}}},
        }
    }
    found = await client.put(draft, params={"dry_run": "true"})
    assert found.json()["newly_masked"] == [
        {"pointer": "/plain", "configs": 3},
        {"pointer": "/servers/*/zone", "configs": 3},
    ]
    assert found.json()["newly_visible"] == [{"pointer": "/credentials/id", "configs": 3}]
    assert SECRET not in found.text
    stream = await client.put(draft, params={"dry_run": "true"}, headers={"Accept": "text/event-stream"})
    assert json.loads(stream.text.strip().split("\n")[-1].removeprefix("data: ")) == found.json()


async def test_conformance_lists_the_values_that_the_previous_release_did_not_mask(client: TypeClient) -> None:
    url = f"postgres://u:{SECRET}@h"
    headers = [{"name": "X-API-Key", "value": SECRET}, {"name": "Accept", "value": "*/*"}]
    await client.put({"properties": {"plain": {"format": "password"}, "credentials": {"properties": {"id": {}}}}})
    await client.save(
        {"token1": SECRET, "url": url, "headers": headers, "plain": SECRET, "max_tokens": 5, "credentials": {"id": 1}}
    )
    await client.save({"password": SECRET}, tenant="other")
    found = (await client.get(f"{PATH}/conformance", role="admin")).json()
    assert [one["pointer"] for one in found["newly_masked"]] == ["/headers/*/value", "/plain", "/token1", "/url"]
    assert {one["configs"] for one in found["newly_masked"]} == {1}
    assert [one["pointer"] for one in found["newly_visible"]] == ["/credentials/id", "/max_tokens"]
    same = (await client.put({"properties": {"plain": {"format": "password"}}}, params={"dry_run": "true"})).json()
    assert same["newly_masked"] == [{"pointer": "/credentials/id", "configs": 1}]


async def test_a_mask_inside_a_url_cannot_be_saved(client: TypeClient) -> None:
    await client.save({"url": f"postgres://u:{SECRET}@h"})
    masked = (await client.get(role="viewer")).json()["configuration"]
    assert masked == {"url": f"postgres://u:{MASK}@h"}
    for method in ("POST", "PUT"):
        refused = await client.save(masked, method=method)
        assert (refused.status_code, refused.json()["code"]) == (422, "mask-sent-back")
        assert refused.json()["errors"][0]["pointer"] == "/configuration/url"
    assert (await client.get()).json()["configuration"] == {"url": f"postgres://u:{SECRET}@h"}


async def test_a_registered_type_stays_valid_under_new_rules(client: TypeClient) -> None:
    """A type of an earlier release is in the database, although its schema can no longer be registered."""
    schema = {"properties": {"token1": {"default": "t"}, "host": {}}}
    manager = client.app.process.types.manager
    root = await client.app.load_principal("root", *ADMIN)
    version = manager._build_next_version(TypeDraft(TYPE, schema), None, TypeKind.SAVED, principal=root)
    assert (await client.put(schema)).status_code == 422
    audited: Any = {"action": "put type", "outcome": "saved", "principal": root}
    assert await manager._append(version, epoch=manager._epoch.value, **audited)
    assert (await client.save({"host": "h"})).status_code == 200
    assert (await client.get()).json()["configuration"] == {"host": "h", "token1": "t"}
    assert (await client.get(role="viewer")).json()["configuration"] == {"host": "h", "token1": MASK}
    assert (await client.get(f"{PATH}/conformance", role="admin")).json()["broken"] == 0


async def test_a_retry_under_a_schema_gets_the_entity_tag_of_the_first_response(client: TypeClient) -> None:
    await client.put({"properties": {"host": {"type": "string"}}})
    body = {**ADDRESS, "configuration": {"host": "h"}}
    repeated: dict[str, Any] = {"token": client.tokens["editor"], "json": body, "headers": {"Idempotency-Key": "k"}}
    first, again = [await client.app.request("POST", "/config", **repeated) for _ in range(2)]
    assert again.headers["idempotency-replayed"] == "true"
    assert first.headers["etag"] == again.headers["etag"] == '"1.1"'


async def test_a_schema_cannot_make_the_whole_configuration_secret(client: TypeClient) -> None:
    refused = await client.put({"$ref": "#/$defs/all", "$defs": {"all": {"writeOnly": True}}})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/schema/$defs/all/writeOnly")


def build_configuration(schema: Any, root: Any, secret: str) -> Any:
    """Build a configuration with the secret at each place where the schema allows a string."""
    if "$ref" in schema:
        return build_configuration(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, secret)
    if schema.get("type") == "array":
        return [secret]
    members = dict(schema.get("properties", {}))
    for choice in schema.get("oneOf", []):
        members |= root["$defs"][choice["$ref"].rsplit("/", 1)[1]]["properties"]
    return {name: build_configuration(inner, root, secret) for name, inner in members.items()} if members else secret


def count_secrets(schema: Any) -> int:
    return json.dumps(schema).count('"writeOnly": true')


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_type_is_accepted_and_masks_its_secrets(client: TypeClient, name: str) -> None:
    schema = EXAMPLES[name]
    assert (await client.put(schema)).status_code == 200
    await client.save(build_configuration(schema, schema, SECRET))
    masked = (await client.get(role="viewer")).text
    assert masked.count(MASK) == count_secrets(schema) >= 2


def test_three_example_types_exist() -> None:
    assert EXAMPLES.keys() == {"flight-information-system", "oauth2-client-credentials", "rest-api-key"}


async def test_a_change_that_loses_every_race_names_the_integration_type(
    client: TypeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose_race(*_: Any, **__: Any) -> bool:
        return False

    monkeypatch.setattr(client.app.process.stores.types, "append", lose_race)
    response = await client.put(SCHEMA)
    assert response.status_code == 503
    assert response.json()["code"] == "too-many-races"
    assert response.json()["detail"] == "Other clients saved this integration type first, 64 times. Try again."
