"""The history of a config over HTTP, as docs/reference/api.md says: versions, diffs, rollbacks and dry runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confide.integration_types.masking import MASK
from confide.names import ConfigKey
from support.app import TYPE, RunningApp
from support.canaries import make_canary
from support.json_values import OBJECTS

ADDRESS = {"tenant": "acme", "integration_type": TYPE}
KEY = ConfigKey("acme", TYPE)
SECRET, OTHER = make_canary("first"), make_canary("second")


class HistoryClient:
    """Clients of an editor and a viewer, for one config."""

    def __init__(self, app: RunningApp, editor: str, viewer: str) -> None:
        self.app, self.editor, self.viewer = app, editor, viewer

    async def save(self, configuration: Any, *, params: Any = None, method: str = "POST", **more: Any) -> Any:
        document = {**ADDRESS, "configuration": configuration, **more}
        return await self.app.request(method, "/config", token=self.editor, json=document, params=params)

    async def get(self, path: str, *, token: str | None = None, **params: Any) -> Any:
        return await self.app.request("GET", path, token=token or self.editor, params={**ADDRESS, **params})

    async def roll_back(self, version: Any, *, params: Any = None, **more: Any) -> Any:
        document = {**ADDRESS, "version": version, **more}
        return await self.app.request("POST", "/config/rollback", token=self.editor, json=document, params=params)

    async def delete(self, **params: str) -> Any:
        return await self.app.request("DELETE", "/config", token=self.editor, params={**ADDRESS, **params})

    async def read_configuration(self) -> Any:
        return (await self.get("/config")).json()["configuration"]

    async def list_audit_entries(self, action: str) -> list[tuple[Any, ...]]:
        """Return outcome, version and subject of the audit entries of an action."""
        rows = [row async for table, row in self.app.process.stores.database.dump() if table == "audit"]
        return [(row[3], row[10], row[11]) for row in rows if row[2] == action]


@pytest.fixture
async def client(app: RunningApp) -> HistoryClient:
    editor = await app.create_token("ed", ("editor", "acme", "*"))
    return HistoryClient(app, editor, await app.create_token("vi", ("viewer", "acme", "*")))


async def test_versions_are_listed_newest_first_with_user_time_and_note(client: HistoryClient) -> None:
    await client.save({"a": 1}, note="the first")
    await client.save({"a": 2})
    await client.delete(note="moved elsewhere")
    reply = await client.get("/config/versions", token=client.viewer)
    assert reply.status_code == 200
    versions = reply.json()["versions"]
    assert [(version["version"], version["kind"], version["saved_by"], version["note"]) for version in versions] == [
        (3, "retired", "ed", "moved elsewhere"),
        (2, "saved", "ed", None),
        (1, "saved", "ed", "the first"),
    ]
    assert len({version["position"] for version in versions}) == 3
    assert [version["pruned"] for version in versions] == [False] * 3
    assert reply.json()["next"] is None
    assert "configuration" not in versions[0]


async def test_pages_of_versions_continue_without_gaps(client: HistoryClient) -> None:
    for number in range(5):
        await client.save({"a": number})
    found: list[int] = []
    after: dict[str, str] = {}
    while True:
        page = (await client.get("/config/versions", limit="2", **after)).json()
        found += [version["version"] for version in page["versions"]]
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
async def test_an_invalid_page_is_rejected(client: HistoryClient, params: dict[str, str], code: str) -> None:
    await client.save({"a": 1})
    reply = await client.get("/config/versions", **params)
    assert (reply.status_code, reply.json()["code"]) == (400, code)


async def test_a_version_is_audited_for_readers_and_masked_for_viewers(client: HistoryClient) -> None:
    await client.save({"user": "a", "password": SECRET})
    await client.save({"password": OTHER})
    opened = await client.get("/config/versions/1")
    assert opened.json()["configuration"] == {"user": "a", "password": SECRET}
    assert (opened.json()["version"], opened.json()["tenant"]) == (1, "acme")
    assert await client.list_audit_entries("reveal") == [("version", 1, None)]
    masked = await client.get("/config/versions/1", token=client.viewer)
    assert masked.json()["configuration"] == {"user": "a", "password": MASK}
    assert len(await client.list_audit_entries("reveal")) == 1


@pytest.mark.parametrize("version", ["0", "-1", "1.5", "1e3", "9223372036854775808", "1_0", "0x1", "null", "3", "01"])
async def test_a_version_that_never_existed_is_not_found(client: HistoryClient, version: str) -> None:
    await client.save({"a": 1})
    assert (await client.get(f"/config/versions/{version}")).status_code == 404
    assert (await client.get("/config/versions/1", integration_type="none")).status_code == 404
    assert (await client.get("/config/versions", integration_type="none")).status_code == 404


async def test_a_tombstone_is_a_version_without_a_configuration(client: HistoryClient) -> None:
    await client.save({"a": 1})
    await client.delete()
    reply = await client.get("/config/versions/2")
    assert (reply.json()["kind"], reply.json()["configuration"]) == ("retired", None)
    assert await client.list_audit_entries("reveal") == []


async def test_a_diff_lists_the_changes_between_any_two_versions(client: HistoryClient) -> None:
    await client.save({"user": "a", "urls": {"x": "1", "y": "2"}, "password": SECRET})
    await client.save({"urls": {"x": "9", "y": None, "z": "3"}, "password": OTHER})
    found = (await client.get("/config/diff", **{"from": "1", "to": "2"})).json()
    assert found == {
        "added": {"/urls/z": "3"},
        "changed": {"/urls/x": {"from": "1", "to": "9"}, "/password": {"from": SECRET, "to": OTHER}},
        "removed": {"/urls/y": "2"},
    }
    assert await client.list_audit_entries("reveal") == [("diff", 2, "since version 1")]
    masked = await client.get("/config/diff", token=client.viewer, **{"from": "1", "to": "2"})
    assert masked.json()["changed"]["/password"] == {"from": MASK, "to": MASK}
    assert SECRET.encode() not in masked.content
    assert OTHER.encode() not in masked.content
    back = (await client.get("/config/diff", **{"from": "2", "to": "1"})).json()
    assert back["removed"] == {"/urls/z": "3"}
    begin = (await client.get("/config/diff", **{"from": "0", "to": "1"})).json()
    assert begin["added"]["/user"] == "a"


@pytest.mark.parametrize(
    ("since", "until", "status"),
    [("1", "7", 404), ("x", "1", 400), ("1", "1.0", 400), ("", "1", 400), ("1", "00", 400)],
)
async def test_a_diff_with_an_invalid_version_is_rejected(
    client: HistoryClient, since: str, until: str, status: int
) -> None:
    await client.save({"a": 1})
    assert (await client.get("/config/diff", **{"from": since, "to": until})).status_code == status


async def test_a_rollback_appends_a_version(client: HistoryClient) -> None:
    await client.save({"a": 1})
    await client.save({"a": 2})
    reply = await client.roll_back(1, note="2 was wrong")
    assert reply.status_code == 200
    assert reply.json()["message"] == f"Config 'acme : {TYPE}' is updated"
    assert (reply.json()["version"], reply.headers["config-version"]) == (3, "3")
    assert await client.read_configuration() == {"a": 1}
    newest = (await client.get("/config/versions", limit="1")).json()["versions"][0]
    assert (newest["version"], newest["note"]) == (3, "2 was wrong")
    assert await client.list_audit_entries("roll back") == [("updated", 3, None)]
    again = await client.roll_back(1)
    assert (again.json()["version"], again.json()["message"][-9:]) == (3, "unchanged")


async def test_a_rollback_restores_a_deleted_config(client: HistoryClient) -> None:
    await client.save({"a": 1, "password": SECRET})
    await client.delete()
    assert (await client.get("/config")).status_code == 404
    reply = await client.roll_back(1)
    assert (reply.json()["version"], reply.json()["message"][-7:]) == (3, "created")
    assert await client.read_configuration() == {"a": 1, "password": SECRET}


@pytest.mark.parametrize("version", [True, 1.0, "1", 0, -1, 2**63, None])
async def test_a_rollback_to_an_invalid_version_number_is_rejected(client: HistoryClient, version: Any) -> None:
    await client.save({"a": 1})
    assert (await client.roll_back(version)).status_code == 422


async def test_a_rollback_to_a_tombstone_or_a_missing_version_is_rejected(client: HistoryClient) -> None:
    assert (await client.roll_back(1)).status_code == 404
    await client.save({"a": 1})
    await client.delete()
    assert (await client.roll_back(999_999)).status_code == 404
    assert (await client.roll_back(2)).status_code == 404


async def test_a_rollback_checks_preconditions_and_can_be_retried(client: HistoryClient) -> None:
    await client.save({"a": 1})
    await client.save({"a": 2})

    async def roll_back(**headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        document = {**ADDRESS, "version": 1}
        return await client.app.request("POST", "/config/rollback", token=client.editor, json=document, headers=named)

    assert (await roll_back(If_Match='"1"')).status_code == 412
    first = await roll_back(If_Match='"2"', Idempotency_Key="once")
    second = await roll_back(If_Match='"2"', Idempotency_Key="once")
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert len((await client.get("/config/versions")).json()["versions"]) == 3


async def test_versions_of_a_destroyed_tenant_are_reported_as_pruned(client: HistoryClient) -> None:
    await client.save({"password": SECRET})
    admin = await client.app.create_token("root", ("admin", "*", "*"))
    await client.app.request("DELETE", "/tenants/acme", token=admin, params={"confirm": "acme"})
    reply = await client.get("/config/versions/1")
    assert (reply.status_code, reply.json()["code"]) == (410, "version-pruned")
    assert (await client.roll_back(1)).status_code == 410
    assert (await client.get("/config/diff", **{"from": "1", "to": "2"})).status_code == 410
    versions = (await client.get("/config/versions")).json()["versions"]
    assert [(version["version"], version["pruned"]) for version in versions] == [(2, False), (1, True)]


@pytest.mark.parametrize("note", [1, True, ["x"], "x" * 501, "two\nlines", "tab\there"])
async def test_a_note_that_is_not_one_line_of_text_is_rejected(client: HistoryClient, note: Any) -> None:
    reply = await client.save({"a": 1}, note=note)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid-note")
    assert (await client.get("/config")).status_code == 404


async def test_a_dry_run_previews_a_save_and_stores_nothing(client: HistoryClient) -> None:
    await client.save({"a": 1, "password": SECRET})
    before = await client.app.process.stores.configs.read(KEY)
    reply = await client.save({"a": 2, "b": 3}, params={"dry_run": "true"})
    assert reply.json() == {
        "diff": {"added": {"/b": 3}, "changed": {"/a": {"from": 1, "to": 2}}, "removed": {}},
        "outcome": "updated",
        "version": 2,
    }
    same = await client.save({"a": 1}, params={"dry_run": "true"})
    assert (same.json()["outcome"], same.json()["version"]) == ("unchanged", 1)
    put = await client.save({}, method="PUT", params={"dry_run": "true"})
    assert put.json()["diff"]["removed"] == {"/a": 1, "/password": SECRET}
    assert await client.app.process.stores.configs.read(KEY) == before
    assert await client.list_audit_entries("reveal") == [("dry run", 1, None)] * 3
    back = await client.roll_back(1, params={"dry_run": "true"})
    assert (back.json()["outcome"], back.json()["diff"]["changed"]) == ("unchanged", {})


async def test_a_dry_run_fails_like_the_save(client: HistoryClient) -> None:
    dry = {"dry_run": "true"}
    assert (await client.save({"password": MASK}, params=dry)).json()["code"] == "mask-sent-back"
    assert (await client.save([1], params=dry)).json()["code"] == "configuration-invalid"
    assert (await client.save({"a": 1}, params={"dry_run": "yes"})).json()["code"] == "malformed-parameter"
    assert (await client.roll_back(1, params=dry)).status_code == 404
    created = await client.save({"a": 1}, params=dry)
    assert (created.json()["outcome"], created.json()["version"]) == ("created", 1)
    document = {**ADDRESS, "configuration": {"a": 1}}
    refused = await client.app.request("POST", "/config", token=client.viewer, json=document, params=dry)
    assert refused.status_code == 403
    stale = await client.app.request(
        "POST", "/config", token=client.editor, json=document, params=dry, headers={"If-Match": '"4"'}
    )
    assert stale.status_code == 412


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(configuration=OBJECTS, method=st.sampled_from(["POST", "PUT"]))
async def test_the_diff_of_a_dry_run_has_the_bytes_of_the_diff_after_the_save(
    client: HistoryClient, configuration: Any, method: str
) -> None:
    dry = await client.save(configuration, method=method, params={"dry_run": "true"})
    if dry.status_code != 200:
        assert (await client.save(configuration, method=method)).status_code == dry.status_code
        return
    preview = dry.json()
    saved = await client.save(configuration, method=method)
    assert saved.json()["version"] == preview["version"]
    assert saved.json()["message"].endswith(preview["outcome"])
    since = preview["version"] - (preview["outcome"] != "unchanged")
    found = await client.get("/config/diff", **{"from": str(since), "to": str(preview["version"])})
    assert b'{"diff":' + found.content + b"," in dry.content
    assert json.loads(found.content) == preview["diff"]


async def test_versions_diffs_and_dry_runs_can_mask_secrets_for_every_role(client: HistoryClient) -> None:
    await client.save({"password": SECRET})
    await client.save({"password": OTHER})
    version = await client.get("/config/versions/1", secrets="masked")
    assert version.json()["configuration"] == {"password": MASK}
    masked: dict[str, Any] = {"from": 1, "to": 2, "secrets": "masked"}
    compared = await client.get("/config/diff", **masked)
    assert compared.json()["changed"] == {"/password": {"from": MASK, "to": MASK}}
    for method in ("POST", "PUT"):
        preview = await client.save(
            {"password": SECRET}, method=method, params={"dry_run": "true", "secrets": "masked"}
        )
        assert preview.json()["diff"]["changed"] == {"/password": {"from": MASK, "to": MASK}}
    preview = await client.roll_back(1, params={"dry_run": "true", "secrets": "masked"})
    assert preview.json()["diff"]["changed"] == {"/password": {"from": MASK, "to": MASK}}
    assert await client.list_audit_entries("reveal") == []


async def test_opened_versions_and_diffs_are_forbidden_to_viewers(client: HistoryClient) -> None:
    await client.save({"password": SECRET})
    assert (await client.get("/config/versions/1", token=client.viewer, secrets="opened")).status_code == 403
    query: dict[str, Any] = {"from": 0, "to": 1, "secrets": "opened"}
    assert (await client.get("/config/diff", token=client.viewer, **query)).status_code == 403
    assert (await client.get("/config/versions/1", secrets="opened")).json()["configuration"] == {"password": SECRET}
    assert (await client.get("/config/diff", **query)).json()["added"] == {"/password": SECRET}


async def test_a_save_that_is_not_a_dry_run_rejects_the_parameter_secrets(client: HistoryClient) -> None:
    reply = await client.save({"a": 1}, params={"secrets": "masked"})
    assert (reply.status_code, reply.json()["code"]) == (400, "malformed-parameter")
    assert (await client.get("/config")).status_code == 404
