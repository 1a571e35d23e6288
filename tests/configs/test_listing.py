"""Configs are listed by change, by last read and by schema violations, and exported in pages."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from confide.identity.routes import MAX_GRANTS
from confide.integration_types.masking import MASK
from support.app import ADMIN, TYPE, RunningApp
from support.canaries import make_canary

SECRET = make_canary("exported")


@dataclass
class ListClient:
    """Clients of an admin, and of an editor and a viewer of one tenant."""

    app: RunningApp
    admin: str
    editor: str
    viewer: str

    async def list_tenants(self, **params: str) -> list[str]:
        reply = await self.app.request("GET", "/configs", token=self.admin, params=params)
        assert reply.status_code == 200, reply.text
        return [one["tenant"] for one in reply.json()["configs"]]

    async def export(self, *, token: str | None = None, **params: str) -> Any:
        return await self.app.request("GET", "/configs/export", token=token or self.admin, params=params)

    async def flush(self) -> None:
        """Write the access statistics to the database, as a worker does every ten seconds."""
        self.app.process.metrics.update()
        await self.app.process.reads.statistics.flush()

    async def list_secret_accesses(self) -> list[tuple[str, str]]:
        rows = [row async for table, row in self.app.process.stores.database.dump() if table == "audit"]
        return [(row[3], row[11]) for row in rows if row[2] == "reveal"]


@pytest.fixture
async def client(app: RunningApp) -> ListClient:
    admin = await app.create_token("root", *ADMIN)
    editor = await app.create_token("ed", ("editor", "acme", "*"))
    return ListClient(app, admin, editor, await app.create_token("vi", ("viewer", "acme", "*")))


def format_time_ago(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def test_configs_are_filtered_by_the_time_of_their_last_save(client: ListClient) -> None:
    await client.app.save(client.admin, {"n": 1}, tenant="old")
    between = format_time_ago()
    await client.app.save(client.admin, {"n": 1}, tenant="new")
    assert await client.list_tenants() == ["new", "old"]
    assert await client.list_tenants(changed_since=between) == ["new"]
    assert await client.list_tenants(changed_since=format_time_ago(hours=-1)) == []


async def test_unread_configs_are_found_and_every_kind_of_read_counts(client: ListClient) -> None:
    for tenant in ("acme", "globex"):
        await client.app.save(client.admin, {"n": 1}, tenant=tenant)
    await asyncio.sleep(0.01)
    since = format_time_ago()
    await asyncio.sleep(0.01)
    for _ in range(3):
        await client.app.read(client.viewer)
    tag = (await client.app.read(client.editor)).headers["etag"]
    await client.app.read(client.editor, headers={"If-None-Match": tag})
    await client.app.read(client.editor, headers={"Cache-Control": "no-cache"})
    await client.flush()
    assert await client.list_tenants(unread_since=since) == ["globex"]
    assert await client.list_tenants(unread_since=format_time_ago(days=90)) == [], "it was saved after that time"
    configs = (await client.app.request("GET", "/configs", token=client.admin)).json()["configs"]
    assert [one["last_read_at"] is None for one in configs] == [False, True]
    address = {"tenant": "acme", "integration_type": TYPE}
    usage = (await client.app.request("GET", "/config/usage", token=client.editor, params=address)).json()["usage"]
    assert sorted((one["login"], one["label"], one["reads"]) for one in usage) == [("ed", "test", 3), ("vi", "test", 3)]
    await client.app.read(client.viewer)
    await client.flush()
    usage = (await client.app.request("GET", "/config/usage", token=client.editor, params=address)).json()["usage"]
    assert (usage[0]["login"], usage[0]["reads"]) == ("vi", 4)
    # The statistics keep the login and the label of a token that was revoked.
    assert (await client.app.request("POST", "/logout", token=client.viewer)).status_code == 200
    usage = (await client.app.request("GET", "/config/usage", token=client.editor, params=address)).json()["usage"]
    assert (usage[0]["login"], usage[0]["label"], usage[0]["reads"]) == ("vi", "test", 4)


async def test_full_access_statistics_count_lost_reads(client: ListClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("confide.reads.statistics.MAX_WAITING", 1)
    for tenant in ("acme", "globex"):
        await client.app.save(client.admin, {"n": 1}, tenant=tenant)
        await client.app.read(client.admin, tenant=tenant)
        await client.app.read(client.admin, tenant=tenant)
    client.app.process.metrics.update()
    assert client.app.process.reads.statistics.lost == 2
    await client.app.process.reads.statistics.flush()
    page = await client.app.request("GET", "/metrics", token=client.admin)
    assert "confide_usage_lost_total 2.0" in page.text


async def test_configs_that_violate_their_schema_are_listed_with_the_places(client: ListClient) -> None:
    schema = {"properties": {"host": {"type": "string"}}}
    await client.app.request("PUT", f"/integration-types/{TYPE}", token=client.admin, json={"schema": schema})
    for n in range(6):
        await client.app.save(client.admin, {"host": "h" if n % 2 else 5}, tenant=f"acme{n}")
    reply = await client.app.request("GET", "/configs", token=client.admin, params={"conforms": "false", "limit": "2"})
    page = reply.json()
    assert [one["tenant"] for one in page["configs"]] == ["acme0", "acme2"]
    assert page["configs"][0]["errors"][0]["pointer"] == "/host"
    rest = {"conforms": "false", "after": page["next"]}
    assert (await client.list_tenants(**rest)) == ["acme4"]
    reply = await client.app.request("GET", "/configs", token=client.admin, params={"conforms": "true"})
    assert reply.json()["code"] == "malformed-parameter"


@pytest.mark.parametrize("text", ["2026-11-24", "2026-11-24T09:15:00", "yesterday", "+010000-01-01T00:00:00Z", ""])
async def test_a_time_without_a_zone_is_rejected(client: ListClient, text: str) -> None:
    for name in ("changed_since", "unread_since"):
        reply = await client.app.request("GET", "/configs", token=client.admin, params={name: text})
        assert (reply.status_code, reply.json()["code"]) == (400, "malformed-parameter")


async def test_an_export_masks_secrets_by_default_and_audits_access_to_them(client: ListClient) -> None:
    for tenant in ("acme", "acme2", "globex"):
        await client.app.save(client.admin, {"host": "h", "password": SECRET}, tenant=tenant)
    masked = await client.export()
    assert SECRET not in masked.text
    assert masked.json()["configs"][0]["configuration"] == {"host": "h", "password": MASK}
    assert await client.list_secret_accesses() == []
    decrypted = (await client.export(secrets="opened", tenant="acme*", limit="1")).json()
    assert decrypted["configs"][0]["configuration"] == {"host": "h", "password": SECRET}
    assert await client.list_secret_accesses() == [("export", f"1 configs from acme:{TYPE} to acme:{TYPE}")]
    rest = (await client.export(secrets="opened", tenant="acme*", after=decrypted["next"])).json()
    assert ([one["tenant"] for one in rest["configs"]], rest["next"]) == (["acme2"], None)
    visible = await client.export(token=client.viewer, secrets="opened")
    assert [(one["tenant"], one["masked"]) for one in visible.json()["configs"]] == [("acme", True)]
    assert SECRET not in visible.text


async def test_an_export_has_the_stored_configuration_without_defaults(client: ListClient) -> None:
    schema = {"properties": {"port": {"default": 1}}}
    await client.app.request("PUT", f"/integration-types/{TYPE}", token=client.admin, json={"schema": schema})
    await client.app.save(client.editor, {"host": "h"})
    assert (await client.export()).json()["configs"][0]["configuration"] == {"host": "h"}


async def test_short_pages_of_an_export_contain_each_config_once(
    client: ListClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confide.configs.export.PAGE_SECONDS", 0.0)
    for n in range(5):
        await client.app.save(client.admin, {"n": n}, tenant=f"t{n}")
    exported: list[str] = []
    after: dict[str, str] = {}
    for _ in range(10):
        page = (await client.export(**after)).json()
        exported += [one["tenant"] for one in page["configs"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert exported == [f"t{n}" for n in range(5)]


async def test_a_page_of_an_export_has_a_limited_size(client: ListClient) -> None:
    for number in range(12):
        saved = await client.app.save(client.admin, {"text": ["x" * 60_000] * 4}, tenant=f"t{number:02}")
        assert saved.status_code == 200
    pages: list[list[str]] = []
    after: str | None = None
    while after is not None or not pages:
        reply = await client.export(tenant="t*", **({"after": after} if after else {}))
        assert len(reply.content) < 3 * 2**20
        pages.append([config["tenant"] for config in reply.json()["configs"]])
        after = reply.json()["next"]
    assert [tenant for page in pages for tenant in page] == [f"t{number:02}" for number in range(12)]
    assert len(pages) == 2


async def test_a_user_with_a_thousand_grants_lists_its_configs(client: ListClient) -> None:
    tenants = [f"t{number}" for number in range(MAX_GRANTS)]
    grants = [("reader", tenant, "*") for tenant in tenants]
    # The token has its own thousand grants. Its pattern covers the last nine of its user's, and `t9` itself.
    narrow = [("reader", "t99*", "*"), *(("reader", f"u{number}", "*") for number in range(MAX_GRANTS - 1))]
    whole = await client.app.create_token("many", *grants)
    part = await client.app.create_token("many", token_grants=narrow)
    for tenant in ("t0", "t500", "t999", "u5"):
        await client.app.save(client.admin, {"n": 1}, tenant=tenant)
    for path in ("/configs", "/configs/export", "/configs?conforms=false", "/integration-types"):
        for token, expected in ((whole, ["t0", "t500", "t999"]), (part, ["t999"])):
            reply = await client.app.request("GET", path, token=token)
            assert reply.status_code == 200, reply.text
            if path in ("/configs", "/configs/export"):
                assert [one["tenant"] for one in reply.json()["configs"]] == expected


async def test_tenants_are_listed_with_the_configs_that_the_caller_may_see(app: RunningApp) -> None:
    editor = await app.create_token("ed", ("editor", "*", "*"))
    for tenant, type_ in (("acme", "crm"), ("acme", "erp"), ("globex", "crm"), ("hooli", "erp"), ("initech", "crm")):
        assert (await app.save(editor, {"a": 1}, tenant=tenant, type_=type_)).status_code == 200
    await app.request("DELETE", "/config", token=editor, params={"tenant": "initech", "integration_type": "crm"})

    async def list_tenants(token: str, **params: str) -> Any:
        return (await app.request("GET", "/tenants", token=token, params=params)).json()

    found = await list_tenants(editor)
    assert found == {
        "tenants": [
            {"tenant": "acme", "configs": 2},
            {"tenant": "globex", "configs": 1},
            {"tenant": "hooli", "configs": 1},
        ],
        "next": None,
    }
    limited = await app.create_token("vi", ("viewer", "acme", "*"), ("viewer", "glob*", "erp"), ("viewer", "*", "crm"))
    assert (await list_tenants(limited))["tenants"] == found["tenants"][:2]
    assert (await list_tenants(editor, tenant="h*"))["tenants"] == found["tenants"][2:]
    assert (await list_tenants(editor, integration_type="erp"))["tenants"] == [
        {"tenant": "acme", "configs": 1},
        {"tenant": "hooli", "configs": 1},
    ]
    page = await list_tenants(editor, limit="2")
    assert (page["tenants"], page["next"]) == (found["tenants"][:2], "globex")
    assert (await list_tenants(editor, after="globex"))["tenants"] == found["tenants"][2:]
    assert (await list_tenants(await app.create_token("nobody"))) == {"tenants": [], "next": None}
    reply = await app.request("GET", "/tenants", token=editor, params={"after": "-"})
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid-cursor")
