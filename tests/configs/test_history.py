"""What a config was, over HTTP: versions, diffs, notes, rollbacks and dry runs, as docs/reference/api.md says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confide.integration_types.masking import MASK
from confide.names import Key
from support.app import TYPE, RunningApp
from support.canaries import canary
from support.json_values import OBJECTS

ADDRESS = {"tenant": "acme", "integration_type": TYPE}
KEY = Key("acme", TYPE)
SECRET, OTHER = canary("first"), canary("second")


class Desk:
    """An editor and a viewer of one config."""

    def __init__(self, app: RunningApp, editor: str, viewer: str) -> None:
        self.app, self.editor, self.viewer = app, editor, viewer

    async def save(self, configuration: Any, *, params: Any = None, method: str = "POST", **more: Any) -> Any:
        document = {**ADDRESS, "configuration": configuration, **more}
        return await self.app.ask(method, "/config", token=self.editor, json=document, params=params)

    async def get(self, path: str, *, token: str | None = None, **params: Any) -> Any:
        return await self.app.ask("GET", path, token=token or self.editor, params={**ADDRESS, **params})

    async def roll_back(self, version: Any, *, params: Any = None, **more: Any) -> Any:
        document = {**ADDRESS, "version": version, **more}
        return await self.app.ask("POST", "/config/rollback", token=self.editor, json=document, params=params)

    async def retire(self, **params: str) -> Any:
        return await self.app.ask("DELETE", "/config", token=self.editor, params={**ADDRESS, **params})

    async def configuration(self) -> Any:
        return (await self.get("/config")).json()["configuration"]

    async def audited(self, action: str) -> list[tuple[Any, ...]]:
        """Outcome, version and subject of each entry of an action."""
        rows = [row async for table, row in self.app.process.stores.database.dump() if table == "audit"]
        return [(row[3], row[10], row[11]) for row in rows if row[2] == action]


@pytest.fixture
async def desk(app: RunningApp) -> Desk:
    editor = await app.token("ed", ("editor", "acme", "*"))
    return Desk(app, editor, await app.token("vi", ("viewer", "acme", "*")))


async def test_every_version_is_listed_the_newest_first_with_who_when_and_why(desk: Desk) -> None:
    await desk.save({"a": 1}, note="the first")
    await desk.save({"a": 2})
    await desk.retire(note="moved elsewhere")
    reply = await desk.get("/config/versions", token=desk.viewer)
    assert reply.status_code == 200
    lines = reply.json()["versions"]
    assert [(line["version"], line["kind"], line["saved_by"], line["note"]) for line in lines] == [
        (3, "retired", "ed", "moved elsewhere"),
        (2, "saved", "ed", None),
        (1, "saved", "ed", "the first"),
    ]
    assert len({line["position"] for line in lines}) == 3
    assert [line["pruned"] for line in lines] == [False] * 3
    assert reply.json()["next"] is None
    assert "configuration" not in lines[0]


async def test_pages_of_versions_follow_each_other(desk: Desk) -> None:
    for number in range(5):
        await desk.save({"a": number})
    found: list[int] = []
    after: dict[str, str] = {}
    while True:
        page = (await desk.get("/config/versions", limit="2", **after)).json()
        found += [line["version"] for line in page["versions"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert found == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"limit": "0"}, "malformed-parameter"),
        ({"limit": "1001"}, "malformed-parameter"),
        ({"after": "0"}, "invalid-cursor"),
        ({"after": "globex:crm"}, "invalid-cursor"),
        ({"version": "1"}, "unknown-parameter"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(desk: Desk, params: dict[str, str], code: str) -> None:
    await desk.save({"a": 1})
    reply = await desk.get("/config/versions", **params)
    assert (reply.status_code, reply.json()["code"]) == (400, code)


async def test_a_version_is_opened_for_readers_which_is_audited_and_masked_for_viewers(desk: Desk) -> None:
    await desk.save({"user": "a", "password": SECRET})
    await desk.save({"password": OTHER})
    opened = await desk.get("/config/versions/1")
    assert opened.json()["configuration"] == {"user": "a", "password": SECRET}
    assert (opened.json()["version"], opened.json()["tenant"]) == (1, "acme")
    assert await desk.audited("reveal") == [("version", 1, None)]
    masked = await desk.get("/config/versions/1", token=desk.viewer)
    assert masked.json()["configuration"] == {"user": "a", "password": MASK}
    assert len(await desk.audited("reveal")) == 1


@pytest.mark.parametrize("version", ["0", "-1", "1.5", "1e3", "9223372036854775808", "1_0", "0x1", "null", "3", "01"])
async def test_a_version_that_never_was_is_not_found(desk: Desk, version: str) -> None:
    await desk.save({"a": 1})
    assert (await desk.get(f"/config/versions/{version}")).status_code == 404
    assert (await desk.get("/config/versions/1", integration_type="none")).status_code == 404
    assert (await desk.get("/config/versions", integration_type="none")).status_code == 404


async def test_a_tombstone_is_a_version_without_a_configuration(desk: Desk) -> None:
    await desk.save({"a": 1})
    await desk.retire()
    reply = await desk.get("/config/versions/2")
    assert (reply.json()["kind"], reply.json()["configuration"]) == ("retired", None)
    assert await desk.audited("reveal") == []


async def test_a_diff_says_what_changed_between_any_two_versions(desk: Desk) -> None:
    await desk.save({"user": "a", "urls": {"x": "1", "y": "2"}, "password": SECRET})
    await desk.save({"urls": {"x": "9", "y": None, "z": "3"}, "password": OTHER})
    found = (await desk.get("/config/diff", **{"from": "1", "to": "2"})).json()
    assert found == {
        "added": {"/urls/z": "3"},
        "changed": {"/urls/x": {"from": "1", "to": "9"}, "/password": {"from": SECRET, "to": OTHER}},
        "removed": {"/urls/y": "2"},
    }
    assert await desk.audited("reveal") == [("diff", 2, "since version 1")]
    seen = await desk.get("/config/diff", token=desk.viewer, **{"from": "1", "to": "2"})
    assert seen.json()["changed"]["/password"] == {"from": MASK, "to": MASK}
    assert SECRET.encode() not in seen.content
    assert OTHER.encode() not in seen.content
    back = (await desk.get("/config/diff", **{"from": "2", "to": "1"})).json()
    assert back["removed"] == {"/urls/z": "3"}
    begin = (await desk.get("/config/diff", **{"from": "0", "to": "1"})).json()
    assert begin["added"]["/user"] == "a"


@pytest.mark.parametrize(
    ("since", "until", "status"),
    [("1", "7", 404), ("x", "1", 400), ("1", "1.0", 400), ("", "1", 400), ("1", "00", 400)],
)
async def test_a_diff_of_what_never_was_is_refused(desk: Desk, since: str, until: str, status: int) -> None:
    await desk.save({"a": 1})
    assert (await desk.get("/config/diff", **{"from": since, "to": until})).status_code == status


async def test_a_rollback_appends_and_numbers_go_on(desk: Desk) -> None:
    await desk.save({"a": 1})
    await desk.save({"a": 2})
    reply = await desk.roll_back(1, note="2 was wrong")
    assert reply.status_code == 200
    assert reply.json()["message"] == f"Config 'acme : {TYPE}' is updated"
    assert (reply.json()["version"], reply.headers["config-version"]) == (3, "3")
    assert await desk.configuration() == {"a": 1}
    newest = (await desk.get("/config/versions", limit="1")).json()["versions"][0]
    assert (newest["version"], newest["note"]) == (3, "2 was wrong")
    assert await desk.audited("roll back") == [("updated", 3, None)]
    again = await desk.roll_back(1)
    assert (again.json()["version"], again.json()["message"][-9:]) == (3, "unchanged")


async def test_a_rollback_brings_a_retired_config_back(desk: Desk) -> None:
    await desk.save({"a": 1, "password": SECRET})
    await desk.retire()
    assert (await desk.get("/config")).status_code == 404
    reply = await desk.roll_back(1)
    assert (reply.json()["version"], reply.json()["message"][-7:]) == (3, "created")
    assert await desk.configuration() == {"a": 1, "password": SECRET}


@pytest.mark.parametrize("version", [True, 1.0, "1", 0, -1, 2**63, None])
async def test_a_rollback_to_what_is_no_number_is_refused(desk: Desk, version: Any) -> None:
    await desk.save({"a": 1})
    assert (await desk.roll_back(version)).status_code == 422


async def test_a_rollback_to_what_cannot_be_brought_back_is_refused(desk: Desk) -> None:
    assert (await desk.roll_back(1)).status_code == 404
    await desk.save({"a": 1})
    await desk.retire()
    assert (await desk.roll_back(999_999)).status_code == 404
    assert (await desk.roll_back(2)).status_code == 404


async def test_a_rollback_obeys_conditions_and_is_answered_once_under_an_idempotency_key(desk: Desk) -> None:
    await desk.save({"a": 1})
    await desk.save({"a": 2})

    async def roll_back(**headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        document = {**ADDRESS, "version": 1}
        return await desk.app.ask("POST", "/config/rollback", token=desk.editor, json=document, headers=named)

    assert (await roll_back(If_Match='"1"')).status_code == 412
    first = await roll_back(If_Match='"2"', Idempotency_Key="once")
    second = await roll_back(If_Match='"2"', Idempotency_Key="once")
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert len((await desk.get("/config/versions")).json()["versions"]) == 3


async def test_what_was_before_a_tenant_was_destroyed_is_gone_and_says_so(desk: Desk) -> None:
    await desk.save({"password": SECRET})
    admin = await desk.app.token("root", ("admin", "*", "*"))
    await desk.app.ask("DELETE", "/tenants/acme", token=admin, params={"confirm": "acme"})
    reply = await desk.get("/config/versions/1")
    assert (reply.status_code, reply.json()["code"]) == (410, "version-pruned")
    assert (await desk.roll_back(1)).status_code == 410
    assert (await desk.get("/config/diff", **{"from": "1", "to": "2"})).status_code == 410
    lines = (await desk.get("/config/versions")).json()["versions"]
    assert [(line["version"], line["pruned"]) for line in lines] == [(2, False), (1, True)]


@pytest.mark.parametrize("note", [1, True, ["x"], "x" * 501, "two\nlines", "tab\there"])
async def test_a_note_is_one_line_of_text(desk: Desk, note: Any) -> None:
    reply = await desk.save({"a": 1}, note=note)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid-note")
    assert (await desk.get("/config")).status_code == 404


async def test_a_dry_run_says_what_a_save_would_come_to_and_stores_nothing(desk: Desk) -> None:
    await desk.save({"a": 1, "password": SECRET})
    before = await desk.app.process.stores.configs.read(KEY)
    reply = await desk.save({"a": 2, "b": 3}, params={"dry_run": "true"})
    assert reply.json() == {
        "diff": {"added": {"/b": 3}, "changed": {"/a": {"from": 1, "to": 2}}, "removed": {}},
        "outcome": "updated",
        "version": 2,
    }
    same = await desk.save({"a": 1}, params={"dry_run": "true"})
    assert (same.json()["outcome"], same.json()["version"]) == ("unchanged", 1)
    put = await desk.save({}, method="PUT", params={"dry_run": "true"})
    assert put.json()["diff"]["removed"] == {"/a": 1, "/password": SECRET}
    assert await desk.app.process.stores.configs.read(KEY) == before
    assert await desk.audited("reveal") == [("dry run", 1, None)] * 3
    back = await desk.roll_back(1, params={"dry_run": "true"})
    assert (back.json()["outcome"], back.json()["diff"]["changed"]) == ("unchanged", {})


async def test_a_dry_run_is_judged_like_the_save(desk: Desk) -> None:
    dry = {"dry_run": "true"}
    assert (await desk.save({"password": MASK}, params=dry)).json()["code"] == "mask-sent-back"
    assert (await desk.save([1], params=dry)).json()["code"] == "configuration-invalid"
    assert (await desk.save({"a": 1}, params={"dry_run": "yes"})).json()["code"] == "malformed-parameter"
    assert (await desk.roll_back(1, params=dry)).status_code == 404
    created = await desk.save({"a": 1}, params=dry)
    assert (created.json()["outcome"], created.json()["version"]) == ("created", 1)
    document = {**ADDRESS, "configuration": {"a": 1}}
    refused = await desk.app.ask("POST", "/config", token=desk.viewer, json=document, params=dry)
    assert refused.status_code == 403
    stale = await desk.app.ask(
        "POST", "/config", token=desk.editor, json=document, params=dry, headers={"If-Match": '"4"'}
    )
    assert stale.status_code == 412


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(configuration=OBJECTS, method=st.sampled_from(["POST", "PUT"]))
async def test_the_diff_of_a_dry_run_is_byte_for_byte_that_of_the_save(
    desk: Desk, configuration: Any, method: str
) -> None:
    dry = await desk.save(configuration, method=method, params={"dry_run": "true"})
    if dry.status_code != 200:
        assert (await desk.save(configuration, method=method)).status_code == dry.status_code
        return
    told = dry.json()
    saved = await desk.save(configuration, method=method)
    assert saved.json()["version"] == told["version"]
    assert saved.json()["message"].endswith(told["outcome"])
    since = told["version"] - (told["outcome"] != "unchanged")
    found = await desk.get("/config/diff", **{"from": str(since), "to": str(told["version"])})
    assert b'{"diff":' + found.content + b"," in dry.content
    assert json.loads(found.content) == told["diff"]
