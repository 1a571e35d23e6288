"""Integration types over HTTP: schemas in force, defaults, warnings and refusals, and which configs break them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from confide.integration_types.masking import MASK
from support.app import ADMIN, RunningApp
from support.canaries import canary

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
SECRET = canary("typed")


class Desk:
    """An admin, an editor and a viewer, and one type."""

    def __init__(self, app: RunningApp, tokens: dict[str, str]) -> None:
        self.app, self.tokens = app, tokens

    async def put(self, schema: Any, *, params: Any = None, headers: Any = None, **more: Any) -> Any:
        body = {"schema": schema, **more}
        token = self.tokens["admin"]
        return await self.app.ask("PUT", PATH, token=token, json=body, params=params, headers=headers or {})

    async def save(self, configuration: Any, *, method: str = "POST", tenant: str = "acme", params: Any = None) -> Any:
        body = {"tenant": tenant, "integration_type": TYPE, "configuration": configuration}
        return await self.app.ask(method, "/config", token=self.tokens["editor"], json=body, params=params)

    async def get(self, path: str = "/config", *, by: str = "editor", headers: Any = None, **params: str) -> Any:
        params = {**ADDRESS, **params} if path.startswith("/config") else params
        return await self.app.ask("GET", path, token=self.tokens[by], params=params, headers=headers or {})


@pytest.fixture
async def desk(app: RunningApp) -> Desk:
    tokens = {"admin": await app.token("root", *ADMIN)}
    for role in ("editor", "viewer"):
        tokens[role] = await app.token(role, (role, "*", "*"))
    return Desk(app, tokens)


async def test_a_type_is_registered_read_listed_and_removed(desk: Desk) -> None:
    made = await desk.put(SCHEMA, mode="enforce", keep=7, note="the first")
    assert (made.status_code, made.json()["message"]) == (200, "Integration type 'crm' is created")
    read = await desk.get(PATH)
    assert read.json() | {"saved_at": ""} == {
        "name": TYPE, "version": 1, "mode": "enforce", "keep": 7, "saved_at": "", "note": "the first", "schema": SCHEMA,
    }  # fmt: skip
    assert (await desk.put(SCHEMA, mode="enforce", keep=7)).json()["message"].endswith("is unchanged")
    assert (await desk.put(None, headers={"If-Match": '"7"'})).status_code == 412
    assert (await desk.put(None, keep=8)).json() == {
        "message": "Integration type 'crm' is updated", "name": TYPE, "version": 2,
    }  # fmt: skip
    assert [one["name"] for one in (await desk.get("/integration-types")).json()["types"]] == [TYPE]
    removed = await desk.app.ask("DELETE", PATH, token=desk.tokens["admin"])
    assert removed.json()["version"] == 3
    assert (await desk.get(PATH)).status_code == 404
    assert (await desk.put(SCHEMA)).json()["version"] == 4, "numbers go on"


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
async def test_a_bad_type_is_refused_and_nothing_is_stored(desk: Desk, body: Any, status: int, code: str) -> None:
    reply = await desk.app.ask("PUT", PATH, token=desk.tokens["admin"], json=body)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert (await desk.get(PATH)).status_code == 404


async def test_only_admins_change_a_type_and_who_has_no_grant_on_it_sees_nothing(desk: Desk) -> None:
    assert (await desk.app.ask("PUT", PATH, token=desk.tokens["editor"], json={"schema": {}})).status_code == 403
    await desk.put(SCHEMA)
    stranger = await desk.app.token("stranger", ("editor", "acme", "billing"))
    assert (await desk.app.ask("GET", PATH, token=stranger)).status_code == 404
    assert (await desk.app.ask("GET", "/integration-types", token=stranger)).json() == {"types": []}


async def test_defaults_fill_what_is_read_and_the_tag_names_the_type(desk: Desk) -> None:
    await desk.save({"host": "h", "key_word": SECRET})
    assert (await desk.get()).headers["etag"] == '"1"'
    await desk.put(SCHEMA)
    filled = await desk.get()
    assert filled.json()["configuration"] == {"host": "h", "key_word": SECRET, "port": 443}
    assert filled.headers["etag"] == '"1.1"'
    bare = await desk.get(defaults="off")
    assert (bare.json()["configuration"], bare.headers["etag"]) == ({"host": "h", "key_word": SECRET}, '"1.1d"')
    masked = await desk.get(by="viewer")
    assert (masked.json()["configuration"]["key_word"], masked.headers["etag"]) == (MASK, '"1.1m"')
    assert (await desk.get(by="viewer", defaults="off")).headers["etag"] == '"1.1md"'
    assert (await desk.get(headers={"If-None-Match": '"1.1"'})).status_code == 304
    assert (await desk.get(defaults="maybe")).json()["code"] == "malformed-parameter"
    await desk.put({**SCHEMA, "properties": {**SCHEMA["properties"], "port": {"default": 8443}}})  # type: ignore[dict-item]
    assert (await desk.get()).json()["configuration"]["port"] == 8443
    assert (await desk.get(headers={"If-None-Match": '"1.1"'})).status_code == 200
    saved = await desk.save({"host": "i"})
    assert saved.headers["etag"] == (await desk.get()).headers["etag"] == '"2.2"'


async def test_what_becomes_a_secret_is_masked_at_once_whatever_was_read_before(desk: Desk) -> None:
    await desk.save({"host": SECRET})
    assert (await desk.get(by="viewer")).json()["configuration"] == {"host": SECRET}
    await desk.put({"properties": {"host": {"writeOnly": True}}})
    assert (await desk.get(by="viewer")).json()["configuration"] == {"host": MASK}
    version = await desk.get("/config/versions/1", by="viewer")
    assert version.json()["configuration"] == {"host": MASK}
    diff = await desk.get("/config/diff", by="viewer", **{"from": "0", "to": "1"})
    assert diff.json()["added"] == {"/host": MASK}


async def test_another_process_hears_of_a_type_within_a_second(desk: Desk) -> None:
    from support.app import start_app  # noqa: PLC0415 - a second app beside the first

    await desk.save({"host": "h"})
    async with start_app(desk.app.settings) as other:
        read: Any = {"token": desk.tokens["viewer"], "params": ADDRESS}
        assert (await other.ask("GET", "/config", **read)).json()["configuration"] == {"host": "h"}
        await desk.put({"properties": {"host": {"writeOnly": True}}})
        await asyncio.sleep(1.0)
        assert (await other.ask("GET", "/config", **read)).json()["configuration"] == {"host": MASK}


async def test_a_warning_lists_what_is_broken_and_saves_all_the_same(desk: Desk) -> None:
    await desk.put(SCHEMA)
    saved = await desk.save({"host": 5})
    assert saved.status_code == 200
    assert sorted((one["pointer"], one["code"]) for one in saved.json()["warnings"]) == [
        ("/configuration/host", "type"),
        ("/configuration/key_word", "required"),
    ]
    assert "warnings" not in (await desk.save({"host": "h", "key_word": "k"})).json()


async def test_enforced_what_is_brought_or_touched_is_refused_and_older_faults_are_warned_of(desk: Desk) -> None:
    await desk.save({"host": 5})
    await desk.put(SCHEMA, mode="enforce")
    refused = await desk.save({"host": 6, "port": SECRET})
    assert (refused.status_code, refused.json()["code"]) == (422, "schema-broken")
    assert SECRET not in refused.text
    places = sorted(one["pointer"] for one in refused.json()["errors"])
    assert places == ["/configuration/host", "/configuration/port"]
    saved = await desk.save({"comment": "c"})
    assert sorted(one["pointer"] for one in saved.json()["warnings"]) == [
        "/configuration/host",
        "/configuration/key_word",
    ]
    tried = await desk.save({"host": 7}, params={"dry_run": "true"})
    assert tried.status_code == 422
    rolled = await desk.app.ask("POST", "/config/rollback", token=desk.tokens["editor"], json={**ADDRESS, "version": 1})
    assert rolled.status_code == 200, "its faults are as old as those of what is there"
    assert (await desk.save({"host": "h"}, method="PUT")).status_code == 200
    assert (await desk.save({"port": 1}, tenant="new")).status_code == 422


async def test_conformance_names_each_config_that_breaks_it_and_a_dry_run_those_that_would(desk: Desk) -> None:
    await desk.put({"properties": {"host": {"type": "string"}}})
    for number in range(5):
        await desk.save({"host": f"h{number}" if number % 2 else SECRET}, tenant=f"t{number}")
    await desk.save({"host": 5}, tenant="odd")
    found = (await desk.get(f"{PATH}/conformance", by="admin")).json()
    assert (found["checked"], found["broken"], found["next"]) == (6, 1, None)
    assert found["configs"] == [
        {"tenant": "odd", "integration_type": TYPE, "version": 1, "errors": found["configs"][0]["errors"]}
    ]
    assert found["configs"][0]["errors"][0] | {"detail": ""} == {"pointer": "/host", "code": "type", "detail": ""}
    stricter = {"properties": {"host": {"type": "string", "maxLength": 3}}}
    tried = await desk.put(stricter, params={"dry_run": "true"})
    assert tried.json()["broken"] == 4
    assert SECRET not in tried.text
    assert (await desk.put(stricter, params={"dry_run": "true"}, headers={"If-Match": '"7"'})).status_code == 412
    assert (await desk.get(PATH)).json()["version"] == 1
    on = (await desk.get(f"{PATH}/conformance", by="admin", after="odd:crm")).json()
    assert (on["checked"], on["next"]) == (5, None)
    stream = await desk.get(f"{PATH}/conformance", by="admin", headers={"Accept": "text/event-stream"})
    assert stream.headers["content-type"] == "text/event-stream"
    name, data = stream.text.strip().split("\n")[-2:]
    assert name == "event: result"
    assert json.loads(data.removeprefix("data: ")) == found
    assert (await desk.get("/integration-types/none/conformance", by="admin")).status_code == 404


async def test_a_retry_under_a_schema_has_the_tag_of_what_was_saved(desk: Desk) -> None:
    await desk.put({"properties": {"host": {"type": "string"}}})
    body = {**ADDRESS, "configuration": {"host": "h"}}
    asked: dict[str, Any] = {"token": desk.tokens["editor"], "json": body, "headers": {"Idempotency-Key": "k"}}
    first, again = [await desk.app.ask("POST", "/config", **asked) for _ in range(2)]
    assert again.headers["idempotency-replayed"] == "true"
    assert first.headers["etag"] == again.headers["etag"] == '"1.1"'


async def test_no_type_is_secret_as_a_whole(desk: Desk) -> None:
    refused = await desk.put({"$ref": "#/$defs/all", "$defs": {"all": {"writeOnly": True}}})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/schema/$defs/all/writeOnly")


def filled_with(schema: Any, root: Any, secret: str) -> Any:
    """A configuration with the secret wherever the schema lets a text stand."""
    if "$ref" in schema:
        return filled_with(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, secret)
    if schema.get("type") == "array":
        return [secret]
    members = dict(schema.get("properties", {}))
    for choice in schema.get("oneOf", []):
        members |= root["$defs"][choice["$ref"].rsplit("/", 1)[1]]["properties"]
    return {name: filled_with(inner, root, secret) for name, inner in members.items()} if members else secret


def secret_places(schema: Any) -> int:
    return json.dumps(schema).count('"writeOnly": true')


@pytest.mark.parametrize("name", EXAMPLES)
async def test_the_example_types_are_taken_and_hide_their_secrets(desk: Desk, name: str) -> None:
    schema = EXAMPLES[name]
    assert (await desk.put(schema)).status_code == 200
    await desk.save(filled_with(schema, schema, SECRET))
    shown = (await desk.get(by="viewer")).text
    assert shown.count(MASK) == secret_places(schema) >= 2


def test_three_types_ship_as_examples() -> None:
    assert EXAMPLES.keys() == {"flight-information-system", "oauth2-client-credentials", "rest-api-key"}
