"""The audit over HTTP: who did what, in one chain that shows whatever is done to it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from confide.audit.chain import BEGINNING, ChainCheck, compute_link, read_checkpoint, read_line
from support.app import ADMIN, TYPE, RunningApp
from support.canaries import canary

SECRET = canary("audited")


class Desk:
    """An admin, an editor, and the engine that a thief of the database would have."""

    def __init__(self, app: RunningApp, admin: str, editor: str) -> None:
        self.app, self.admin, self.editor = app, admin, editor

    async def get(self, path: str = "/audit", *, token: str | None = None, headers: Any = None, **params: str) -> Any:
        await self.app.process.audit.linker.link()
        return await self.app.ask("GET", path, token=token or self.admin, params=params, headers=headers or {})

    async def entries(self, **params: str) -> list[Any]:
        found: list[Any] = (await self.get(**params)).json()["entries"]
        return found

    async def sql(self, text: str, *args: Any) -> Any:
        engine: Any = self.app.process.stores.database._host_engine

        def work() -> Any:
            from confide.database.engine import statement  # noqa: PLC0415 - a thief's own tools

            return (yield statement(text, *args))

        return await engine.transact(work())


@pytest.fixture
async def desk(app: RunningApp) -> Desk:
    admin = await app.token("root", *ADMIN)
    return Desk(app, admin, await app.token("ed", ("editor", "acme", "*")))


async def test_who_did_what_to_what_when_from_where_with_which_result(desk: Desk) -> None:
    await desk.app.save(desk.editor, {"password": SECRET})
    await desk.app.save(desk.editor, {"n": 1}, tenant="globex")
    await desk.app.ask("PUT", f"/integration-types/{TYPE}", token=desk.admin, json={"schema": {}})
    reply = await desk.get()
    assert SECRET not in reply.text
    changed, denied, saved = reply.json()["entries"][:3]
    known = {name: saved[name] for name in ("action", "outcome", "actor", "tenant", "integration_type", "version")}
    assert known == {
        "action": "save", "outcome": "created", "actor": "ed", "tenant": "acme", "integration_type": TYPE, "version": 1,
    }  # fmt: skip
    assert saved["address"]
    assert saved["request_id"]
    assert saved["position"] is not None
    assert (denied["action"], denied["outcome"], denied["tenant"]) == ("save", "denied", "globex")
    assert (changed["action"], changed["subject"]) == ("put type", f"type {TYPE} version 1")
    assert [one["number"] for one in reply.json()["entries"]] == sorted(
        (one["number"] for one in reply.json()["entries"]), reverse=True
    )


async def test_entries_are_found_by_what_they_are_about(desk: Desk) -> None:
    for tenant in ("acme", "acme2", "globex"):
        await desk.app.save(desk.admin, {"n": 1}, tenant=tenant)
    await desk.app.save(desk.editor, {"n": 2})
    assert len(await desk.entries(tenant="acme*", action="save")) == 3
    assert len(await desk.entries(tenant="acme", integration_type="fl*")) == 2
    assert len(await desk.entries(actor="ed", action="save")) == 1
    assert await desk.entries(actor="nobody") == []
    assert await desk.entries(action="save", to="2020-01-01T00:00:00Z") == []
    assert len(await desk.entries(action="save", **{"from": "2020-01-01T00:00:00+02:00"})) == 4
    page = (await desk.get(action="save", limit="3")).json()
    rest = (await desk.get(action="save", limit="3", after=page["next"])).json()
    assert (len(page["entries"]), len(rest["entries"]), rest["next"]) == (3, 1, None)


@pytest.mark.parametrize("path", ["/audit", "/audit/verify", "/audit/export", "/audit/checkpoints"])
async def test_only_admins_see_it(desk: Desk, path: str) -> None:
    for headers in ({}, {"Accept": "text/event-stream"}):
        assert (await desk.get(path, token=desk.editor, headers=headers)).status_code == 403


async def test_a_whole_chain_is_proven_online_and_offline_and_signed_in_a_second_place(desk: Desk) -> None:
    for n in range(5):
        await desk.app.save(desk.editor, {"n": n})
    await desk.app.process.audit.linker.link()
    signed = await desk.app.process.audit.linker.sign()
    assert signed is not None
    assert await desk.app.process.audit.linker.sign() is None, "nothing new"
    proof = (await desk.get("/audit/verify")).json()
    assert (proof["ok"], proof["first_bad"], proof["next"]) == (True, None, None)
    stream = await desk.get("/audit/verify", headers={"Accept": "text/event-stream"})
    assert json.loads(stream.text.strip().rsplit("data: ", 1)[1])["ok"]
    written = desk.app.settings.checkpoints_file.read_bytes().splitlines()
    assert read_checkpoint(written[-1]) == signed
    told = (await desk.get("/audit/checkpoints")).json()
    assert told["public_key"] == signed.public_key.hex()
    lines = (await desk.get("/audit/export", limit="1000")).content.splitlines()
    entries = [one for line in lines if (one := read_line(line)) is not None]
    check = ChainCheck({signed.number: signed})
    assert check.follow(entries)
    assert check.end() is None
    assert check.number == len(lines) >= 6


ENTRY = "id = (SELECT audit_id FROM audit_links WHERE number = $1)"
TAMPERINGS: dict[str, list[tuple[str, tuple[Any, ...]]]] = {
    "altered": [("UPDATE audit SET outcome = 'denied' WHERE " + ENTRY, (3,))],
    "altered in a field that is seldom": [
        ("UPDATE audit SET address = '192.0.2.1' WHERE " + ENTRY, (3,))
    ],
    "deleted": [("DELETE FROM audit WHERE " + ENTRY, (3,))],
    "deleted with its link": [
        ("DELETE FROM audit WHERE " + ENTRY, (3,)),
        ("DELETE FROM audit_links WHERE number = $1", (3,)),
    ],
    "links exchanged": [
        ("UPDATE audit_links SET audit_id = -audit_id WHERE number = 3", ()),
        ("UPDATE audit_links SET audit_id = (SELECT -audit_id FROM audit_links WHERE number = 3) WHERE number = 4", ()),
    ],
    "a MAC taken from another": [
        ("UPDATE audit SET mac = (SELECT mac FROM audit WHERE id = (SELECT max(id) FROM audit)) WHERE " + ENTRY, (3,)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_whatever_a_thief_does_in_the_database_is_found_where_it_was_done(desk: Desk, name: str) -> None:
    for n in range(8):
        await desk.app.save(desk.editor, {"n": n})
    await desk.app.process.audit.linker.link()
    for text, args in TAMPERINGS[name]:
        await desk.sql(text, *args)
    proof = (await desk.get("/audit/verify")).json()
    assert (proof["ok"], proof["first_bad"]["number"]) == (False, 3)


@pytest.mark.parametrize(
    "altered",
    [
        pytest.param("subject = CAST(x'ff00' AS TEXT)", id="no text"),
        pytest.param("at = 9223372036854775807", id="no time"),
        pytest.param("at = -9223372036854775807", id="no time before"),
    ],
)
async def test_an_entry_that_can_no_longer_be_told_is_named_and_hides_no_other(
    desk: Desk, engine: str, altered: str
) -> None:
    if "CAST" in altered and engine == "postgres":
        altered = "subject = 'other'"  # PostgreSQL keeps no text that is none
    for n in range(8):
        await desk.app.save(desk.editor, {"n": n})
    await desk.app.process.audit.linker.link()
    await desk.sql(f"UPDATE audit SET {altered} WHERE {ENTRY}", 3)
    proof = (await desk.get("/audit/verify")).json()
    assert (proof["ok"], proof["first_bad"]["number"]) == (False, 3)
    assert 3 in [entry["number"] for entry in await desk.entries()]
    lines = (await desk.get("/audit/export")).content.splitlines()
    check = ChainCheck({})
    assert not check.follow(map(read_line, lines))
    assert (check.bad or (0,))[0] == 3


async def test_what_was_revealed_by_a_pattern_is_found_under_each_name_that_it_covers(desk: Desk) -> None:
    await desk.app.save(desk.editor, {"password": SECRET})
    for tenant in ("ac*", "*", "acme"):
        shown = await desk.get("/configs/export", secrets="opened", tenant=tenant, integration_type=f"{TYPE[:3]}*")
        assert SECRET in shown.text
    for params, count in (
        ({"tenant": "acme"}, 3), ({"tenant": "acme", "integration_type": TYPE}, 3), ({"tenant": "acm*"}, 3),
        ({"tenant": "acorn"}, 2), ({"tenant": "globex"}, 1), ({"tenant": "*", "integration_type": "zzz"}, 0),
    ):  # fmt: skip
        assert len(await desk.entries(action="reveal", **params)) == count, params


async def test_an_entry_that_was_altered_before_it_was_linked_stops_no_other(desk: Desk, engine: str) -> None:
    await desk.app.process.audit.linker.link()
    for n in range(3):
        await desk.app.save(desk.editor, {"n": n})
    altered = "'other'" if engine == "postgres" else "CAST(x'ff00' AS TEXT)"
    ((last,),) = await desk.sql("SELECT max(id) FROM audit")
    await desk.sql(f"UPDATE audit SET subject = {altered} WHERE id = $1", last - 1)
    proof = (await desk.get("/audit/verify")).json()
    assert (proof["ok"], proof["unlinked"], proof["first_bad"]["number"]) == (False, 0, proof["checked"] + 1)
    assert len(await desk.entries(action="save")) == 3


async def test_who_nobody_can_be_and_what_nobody_does_is_no_filter(desk: Desk) -> None:
    for params in ({"actor": "\0"}, {"actor": "a b"}, {"action": "\0"}, {"action": "Save"}):
        reply = await desk.get(**params)
        assert (reply.status_code, reply.json()["code"]) == (400, "malformed-parameter")
    await desk.app.save(desk.editor, {"n": 1})
    assert len(await desk.entries(actor="ED", action="save")) == 1


async def test_what_the_second_place_does_not_take_is_written_there_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = desk.app.settings.checkpoints_file
    chain = desk.app.process.audit.linker
    monkeypatch.setattr(chain._checkpoint_file, "_path", path.parent / "nowhere" / "x.jsonl")
    for n in range(2):
        await desk.app.save(desk.editor, {"n": n})
        assert (await desk.get("/audit/checkpoints")).status_code == 200
    monkeypatch.setattr(chain._checkpoint_file, "_path", path)
    await chain.sign()
    written = [read_checkpoint(line) for line in path.read_bytes().splitlines()]
    assert written == await desk.app.process.stores.audit.checkpoints()
    assert len(written) >= 2
    pages, after = [], "0"
    while after is not None:
        page = (await desk.get("/audit/checkpoints", limit="1", after=after)).json()
        pages.append([one["checkpoint"] for one in page["checkpoints"]])
        after = page["next"]
    assert pages == [[one.number] for one in written if one is not None]


async def test_a_cut_off_end_and_an_entry_out_of_the_chain_are_found(desk: Desk) -> None:
    for n in range(8):
        await desk.app.save(desk.editor, {"n": n})
    await desk.app.process.audit.linker.link()
    signed = await desk.app.process.audit.linker.sign()
    assert signed is not None
    await desk.sql(
        "DELETE FROM audit WHERE id IN (SELECT audit_id FROM audit_links WHERE number > $1)", signed.number - 2
    )
    await desk.sql("DELETE FROM audit_links WHERE number > $1", signed.number - 2)
    proof = (await desk.app.ask("GET", "/audit/verify", token=desk.admin)).json()
    assert proof["first_bad"]["number"] == signed.number - 1
    assert "signed" in proof["first_bad"]["why"]
    await desk.sql("INSERT INTO audit (id, at, action, outcome, mac) VALUES (-1, 1, 'save', 'created', $1)", b"m" * 32)
    assert (await desk.app.ask("GET", "/audit/verify", token=desk.admin)).json()["unlinked"] == 1


async def relinked(desk: Desk) -> None:
    """Make the chain anew over what is left, as anybody can who has the database."""
    before = BEGINNING
    found = [one for one in await desk.app.process.stores.audit.linked(after=0, limit=1_000) if one.entry is not None]
    ids = await desk.sql("SELECT l.audit_id FROM audit_links l JOIN audit a ON a.id = l.audit_id ORDER BY l.number")
    await desk.sql("DELETE FROM audit_links")
    for number, (one, (audit_id,)) in enumerate(zip(found, ids, strict=True), 1):
        before = compute_link(before, number, one.entry or b"", one.mac)
        await desk.sql("INSERT INTO audit_links (number, audit_id, link) VALUES ($1, $2, $3)", number, audit_id, before)


@pytest.mark.parametrize("has_second_place", [True, False])
async def test_an_entry_that_was_taken_out_and_linked_over_is_found_by_what_was_signed(
    desk: Desk, *, has_second_place: bool
) -> None:
    for n in range(8):
        await desk.app.save(desk.editor, {"n": n})
    await desk.app.process.audit.linker.link()
    signed = await desk.app.process.audit.linker.sign()
    assert signed is not None
    await desk.sql("DELETE FROM audit WHERE " + ENTRY, 3)
    await relinked(desk)
    if has_second_place:
        await desk.sql("DELETE FROM checkpoints")
    else:
        desk.app.settings.checkpoints_file.unlink()
        forged = (await desk.app.process.stores.audit.link_of(signed.number - 1)) or b""
        await desk.sql("UPDATE checkpoints SET number = number - 1, link = $1", forged)
    proof = (await desk.app.ask("GET", "/audit/verify", token=desk.admin)).json()
    assert not proof["ok"]
    assert "signed" in proof["first_bad"]["why"]


async def test_a_proof_begins_where_there_is_an_entry(desk: Desk) -> None:
    assert (await desk.get("/audit/verify", after="999999")).json()["code"] == "invalid-cursor"


async def test_entries_are_linked_within_a_second_and_each_once_whoever_links(desk: Desk) -> None:
    chain = desk.app.process.audit.linker
    running = [asyncio.create_task(chain.run()) for _ in range(3)]
    await asyncio.gather(*(desk.app.save(desk.editor, {"n": n}, type_=f"t{n % 7}") for n in range(100)))
    await asyncio.sleep(1.0)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    proof = (await desk.app.ask("GET", "/audit/verify", token=desk.admin)).json()
    assert proof["ok"]
    assert proof["checked"] >= 100
    ((entries,),) = await desk.sql("SELECT count(*) FROM audit")
    assert entries == proof["checked"]
