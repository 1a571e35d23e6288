"""Finding configs: changed since, read by nobody since, breaking their type; and exporting them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from confide.integration_types.masking import MASK
from support.app import ADMIN, TYPE, RunningApp
from support.canaries import canary

SECRET = canary("exported")


@dataclass
class Desk:
    """An admin, an editor and a viewer of one tenant."""

    app: RunningApp
    admin: str
    editor: str
    viewer: str

    async def list_tenants(self, **params: str) -> list[str]:
        reply = await self.app.ask("GET", "/configs", token=self.admin, params=params)
        assert reply.status_code == 200, reply.text
        return [one["tenant"] for one in reply.json()["configs"]]

    async def export(self, *, token: str | None = None, **params: str) -> Any:
        return await self.app.ask("GET", "/configs/export", token=token or self.admin, params=params)

    async def flush(self) -> None:
        """Take over and write down what was read, as a worker does now and then."""
        self.app.process.metrics.update()
        await self.app.process.reads.statistics.flush()

    async def audited(self) -> list[tuple[str, str]]:
        rows = [row async for table, row in self.app.process.stores.database.dump() if table == "audit"]
        return [(row[3], row[11]) for row in rows if row[2] == "reveal"]


@pytest.fixture
async def desk(app: RunningApp) -> Desk:
    admin = await app.token("root", *ADMIN)
    editor = await app.token("ed", ("editor", "acme", "*"))
    return Desk(app, admin, editor, await app.token("vi", ("viewer", "acme", "*")))


def moment(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def test_configs_are_found_by_when_they_were_saved(desk: Desk) -> None:
    await desk.app.save(desk.admin, {"n": 1}, tenant="old")
    between = moment()
    await desk.app.save(desk.admin, {"n": 1}, tenant="new")
    assert await desk.list_tenants() == ["new", "old"]
    assert await desk.list_tenants(changed_since=between) == ["new"]
    assert await desk.list_tenants(changed_since=moment(hours=-1)) == []


async def test_what_nobody_reads_is_found_and_each_read_counts_whatever_answered_it(desk: Desk) -> None:
    for tenant in ("acme", "globex"):
        await desk.app.save(desk.admin, {"n": 1}, tenant=tenant)
    await asyncio.sleep(0.01)
    since = moment()
    await asyncio.sleep(0.01)
    for _ in range(3):
        await desk.app.read(desk.viewer)
    tag = (await desk.app.read(desk.editor)).headers["etag"]
    await desk.app.read(desk.editor, headers={"If-None-Match": tag})
    await desk.app.read(desk.editor, headers={"Cache-Control": "no-cache"})
    await desk.flush()
    assert await desk.list_tenants(unread_since=since) == ["globex"]
    assert await desk.list_tenants(unread_since=moment(days=90)) == [], "it was saved since"
    lines = (await desk.app.ask("GET", "/configs", token=desk.admin)).json()["configs"]
    assert [one["last_read_at"] is None for one in lines] == [False, True]
    address = {"tenant": "acme", "integration_type": TYPE}
    usage = (await desk.app.ask("GET", "/config/usage", token=desk.editor, params=address)).json()["usage"]
    assert sorted((one["login"], one["label"], one["reads"]) for one in usage) == [("ed", "test", 3), ("vi", "test", 3)]
    await desk.app.read(desk.viewer)
    await desk.flush()
    usage = (await desk.app.ask("GET", "/config/usage", token=desk.editor, params=address)).json()["usage"]
    assert (usage[0]["login"], usage[0]["reads"]) == ("vi", 4)
    # Who read it is known when the token is long gone.
    assert (await desk.app.ask("POST", "/logout", token=desk.viewer)).status_code == 200
    usage = (await desk.app.ask("GET", "/config/usage", token=desk.editor, params=address)).json()["usage"]
    assert (usage[0]["login"], usage[0]["label"], usage[0]["reads"]) == ("vi", "test", 4)


async def test_a_ledger_that_is_full_counts_what_it_loses(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("confide.reads.statistics.MAX_WAITING", 1)
    for tenant in ("acme", "globex"):
        await desk.app.save(desk.admin, {"n": 1}, tenant=tenant)
        await desk.app.read(desk.admin, tenant=tenant)
        await desk.app.read(desk.admin, tenant=tenant)
    desk.app.process.metrics.update()
    assert desk.app.process.reads.statistics.lost == 2
    await desk.app.process.reads.statistics.flush()
    page = await desk.app.ask("GET", "/metrics", token=desk.admin)
    assert "confide_usage_lost_total 2.0" in page.text


async def test_those_that_break_their_type_are_found_with_where(desk: Desk) -> None:
    schema = {"properties": {"host": {"type": "string"}}}
    await desk.app.ask("PUT", f"/integration-types/{TYPE}", token=desk.admin, json={"schema": schema})
    for n in range(6):
        await desk.app.save(desk.admin, {"host": "h" if n % 2 else 5}, tenant=f"acme{n}")
    reply = await desk.app.ask("GET", "/configs", token=desk.admin, params={"conforms": "false", "limit": "2"})
    page = reply.json()
    assert [one["tenant"] for one in page["configs"]] == ["acme0", "acme2"]
    assert page["configs"][0]["errors"][0]["pointer"] == "/host"
    rest = {"conforms": "false", "after": page["next"]}
    assert (await desk.list_tenants(**rest)) == ["acme4"]
    reply = await desk.app.ask("GET", "/configs", token=desk.admin, params={"conforms": "true"})
    assert reply.json()["code"] == "malformed-parameter"


@pytest.mark.parametrize("text", ["2026-11-24", "2026-11-24T09:15:00", "yesterday", "+010000-01-01T00:00:00Z", ""])
async def test_a_time_without_its_zone_is_none(desk: Desk, text: str) -> None:
    for name in ("changed_since", "unread_since"):
        reply = await desk.app.ask("GET", "/configs", token=desk.admin, params={name: text})
        assert (reply.status_code, reply.json()["code"]) == (400, "malformed-parameter")


async def test_an_export_is_masked_or_opened_by_choice_and_a_reveal_is_audited_first(desk: Desk) -> None:
    for tenant in ("acme", "acme2", "globex"):
        await desk.app.save(desk.admin, {"host": "h", "password": SECRET}, tenant=tenant)
    masked = await desk.export()
    assert SECRET not in masked.text
    assert masked.json()["configs"][0]["configuration"] == {"host": "h", "password": MASK}
    assert await desk.audited() == []
    opened = (await desk.export(secrets="opened", tenant="acme*", limit="1")).json()
    assert opened["configs"][0]["configuration"] == {"host": "h", "password": SECRET}
    assert await desk.audited() == [("export", f"1 configs from acme:{TYPE} to acme:{TYPE}")]
    rest = (await desk.export(secrets="opened", tenant="acme*", after=opened["next"])).json()
    assert ([one["tenant"] for one in rest["configs"]], rest["next"]) == (["acme2"], None)
    mine = await desk.export(token=desk.viewer, secrets="opened")
    assert [(one["tenant"], one["masked"]) for one in mine.json()["configs"]] == [("acme", True)]
    assert SECRET not in mine.text


async def test_an_export_shows_what_is_stored_and_not_the_defaults(desk: Desk) -> None:
    schema = {"properties": {"port": {"default": 1}}}
    await desk.app.ask("PUT", f"/integration-types/{TYPE}", token=desk.admin, json={"schema": schema})
    await desk.app.save(desk.editor, {"host": "h"})
    assert (await desk.export()).json()["configs"][0]["configuration"] == {"host": "h"}


async def test_pages_of_an_export_make_the_whole_and_each_is_within_its_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confide.configs.export.PAGE_SECONDS", 0.0)
    for n in range(5):
        await desk.app.save(desk.admin, {"n": n}, tenant=f"t{n}")
    heard: list[str] = []
    after: dict[str, str] = {}
    for _ in range(10):
        page = (await desk.export(**after)).json()
        heard += [one["tenant"] for one in page["configs"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert heard == [f"t{n}" for n in range(5)]


async def test_a_page_of_an_export_ends_where_it_would_grow_too_large(desk: Desk) -> None:
    for number in range(12):
        saved = await desk.app.save(desk.admin, {"text": ["x" * 60_000] * 4}, tenant=f"t{number:02}")
        assert saved.status_code == 200
    pages: list[list[str]] = []
    after: str | None = None
    while after is not None or not pages:
        reply = await desk.export(tenant="t*", **({"after": after} if after else {}))
        assert len(reply.content) < 3 * 2**20
        pages.append([config["tenant"] for config in reply.json()["configs"]])
        after = reply.json()["next"]
    assert [tenant for page in pages for tenant in page] == [f"t{number:02}" for number in range(12)]
    assert len(pages) == 2
