"""The audit log over HTTP: its entries, and the hash chain that detects a change to them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from confide.audit.chain import FIRST_LINK, ChainCheck, ChainedEntry, compute_link, parse_checkpoint, parse_line
from confide.caching.stamps import SlotChange, find_config_slot
from confide.clock import MICROSECONDS_PER_SECOND
from confide.configs.errors import Superseded
from confide.configs.model import Kind, NewVersion
from confide.database.log import EntryRow
from confide.names import ConfigKey
from support.app import ADMIN, PASSWORD, TYPE, RunningApp
from support.canaries import make_canary

SECRET = make_canary("audited")


class AuditClient:
    """Clients of an admin and an editor, and the database access of an attacker."""

    def __init__(self, app: RunningApp, admin: str, editor: str) -> None:
        self.app, self.admin, self.editor = app, admin, editor

    async def get(self, path: str = "/audit", *, token: str | None = None, headers: Any = None, **params: str) -> Any:
        await self.app.process.audit.chain_writer.append_entries()
        return await self.app.request("GET", path, token=token or self.admin, params=params, headers=headers or {})

    async def list_entries(self, **params: str) -> list[Any]:
        entries: list[Any] = (await self.get(**params)).json()["entries"]
        return entries


@pytest.fixture
async def client(app: RunningApp) -> AuditClient:
    admin = await app.create_token("root", *ADMIN)
    return AuditClient(app, admin, await app.create_token("ed", ("editor", "acme", "*")))


async def test_an_entry_names_actor_action_object_time_origin_and_outcome(client: AuditClient) -> None:
    await client.app.save(client.editor, {"password": SECRET})
    await client.app.save(client.editor, {"n": 1}, tenant="globex")
    await client.app.request("PUT", f"/integration-types/{TYPE}", token=client.admin, json={"schema": {}})
    reply = await client.get()
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


async def test_entries_are_filtered_by_object_actor_action_and_time(client: AuditClient) -> None:
    for tenant in ("acme", "acme2", "globex"):
        await client.app.save(client.admin, {"n": 1}, tenant=tenant)
    await client.app.save(client.editor, {"n": 2})
    assert len(await client.list_entries(tenant="acme*", action="save")) == 3
    assert len(await client.list_entries(tenant="acme", integration_type="fl*")) == 2
    assert len(await client.list_entries(actor="ed", action="save")) == 1
    assert await client.list_entries(actor="nobody") == []
    assert await client.list_entries(action="save", to="2020-01-01T00:00:00Z") == []
    assert len(await client.list_entries(action="save", **{"from": "2020-01-01T00:00:00+02:00"})) == 4
    page = (await client.get(action="save", limit="3")).json()
    rest = (await client.get(action="save", limit="3", after=page["next"])).json()
    assert (len(page["entries"]), len(rest["entries"]), rest["next"]) == (3, 1, None)


@pytest.mark.parametrize("path", ["/audit", "/audit/verify", "/audit/export", "/audit/checkpoints"])
async def test_only_admins_can_read_the_audit_log(client: AuditClient, path: str) -> None:
    for headers in ({}, {"Accept": "text/event-stream"}):
        assert (await client.get(path, token=client.editor, headers=headers)).status_code == 403


async def test_an_unaltered_chain_passes_online_and_offline_and_its_checkpoint_is_in_the_file(
    client: AuditClient,
) -> None:
    for n in range(5):
        await client.app.save(client.editor, {"n": n})
    await client.app.process.audit.chain_writer.append_entries()
    signed = await client.app.process.audit.chain_writer.sign_checkpoint()
    assert signed is not None
    assert await client.app.process.audit.chain_writer.sign_checkpoint() is None, "nothing new"
    result = (await client.get("/audit/verify")).json()
    assert (result["ok"], result["first_bad"], result["next"]) == (True, None, None)
    stream = await client.get("/audit/verify", headers={"Accept": "text/event-stream"})
    assert json.loads(stream.text.strip().rsplit("data: ", 1)[1])["ok"]
    written = client.app.settings.checkpoints_file.read_bytes().splitlines()
    assert parse_checkpoint(written[-1]) == signed
    listed = (await client.get("/audit/checkpoints")).json()
    assert listed["public_key"] == signed.public_key.hex()
    lines = (await client.get("/audit/export", limit="1000")).content.splitlines()
    entries = [one for line in lines if (one := parse_line(line)) is not None]
    check = ChainCheck([signed])
    assert check.verify_next(entries)
    assert check.finish() is None
    assert check.number == len(lines) >= 6


ENTRY = "id = (SELECT audit_id FROM audit_links WHERE number = $1)"
TAMPERINGS: dict[str, list[tuple[str, tuple[Any, ...]]]] = {
    "altered": [("UPDATE audit SET outcome = 'denied' WHERE " + ENTRY, (3,))],
    "altered in a rare field": [
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
async def test_tampering_with_the_database_is_detected_at_its_entry(client: AuditClient, name: str) -> None:
    for n in range(8):
        await client.app.save(client.editor, {"n": n})
    await client.app.process.audit.chain_writer.append_entries()
    for text, args in TAMPERINGS[name]:
        await client.app.execute_sql(text, *args)
    result = (await client.get("/audit/verify")).json()
    assert (result["ok"], result["first_bad"]["number"]) == (False, 3)


@pytest.mark.parametrize(
    "altered",
    [
        pytest.param("subject = CAST(x'ff00' AS TEXT)", id="invalid text"),
        pytest.param("at = 9223372036854775807", id="time too large"),
        pytest.param("at = -9223372036854775807", id="time too small"),
    ],
)
async def test_an_entry_with_invalid_values_is_named_and_hides_no_other(
    client: AuditClient, engine: str, altered: str
) -> None:
    if "CAST" in altered and engine == "postgresql":
        altered = "subject = 'other'"  # PostgreSQL stores valid text only
    for n in range(8):
        await client.app.save(client.editor, {"n": n})
    await client.app.process.audit.chain_writer.append_entries()
    await client.app.execute_sql(f"UPDATE audit SET {altered} WHERE {ENTRY}", 3)
    result = (await client.get("/audit/verify")).json()
    assert (result["ok"], result["first_bad"]["number"]) == (False, 3)
    assert 3 in [entry["number"] for entry in await client.list_entries()]
    lines = (await client.get("/audit/export")).content.splitlines()
    check = ChainCheck({})
    assert not check.verify_next(map(parse_line, lines))
    assert (check.bad or (0,))[0] == 3


async def test_an_export_by_pattern_is_found_under_each_name_that_the_pattern_covers(client: AuditClient) -> None:
    await client.app.save(client.editor, {"password": SECRET})
    for tenant in ("ac*", "*", "acme"):
        exported = await client.get("/configs/export", secrets="opened", tenant=tenant, integration_type=f"{TYPE[:3]}*")
        assert SECRET in exported.text
    for params, count in (
        ({"tenant": "acme"}, 3), ({"tenant": "acme", "integration_type": TYPE}, 3), ({"tenant": "acm*"}, 3),
        ({"tenant": "acorn"}, 2), ({"tenant": "globex"}, 1), ({"tenant": "*", "integration_type": "zzz"}, 0),
    ):  # fmt: skip
        assert len(await client.list_entries(action="reveal", **params)) == count, params


async def test_an_entry_altered_before_it_is_chained_does_not_stop_the_chain(client: AuditClient, engine: str) -> None:
    await client.app.process.audit.chain_writer.append_entries()
    for n in range(3):
        await client.app.save(client.editor, {"n": n})
    altered = "'other'" if engine == "postgresql" else "CAST(x'ff00' AS TEXT)"
    ((last,),) = await client.app.execute_sql("SELECT max(id) FROM audit")
    await client.app.execute_sql(f"UPDATE audit SET subject = {altered} WHERE id = $1", last - 1)
    result = (await client.get("/audit/verify")).json()
    assert (result["ok"], result["unlinked"], result["first_bad"]["number"]) == (False, 0, result["checked"] + 1)
    assert len(await client.list_entries(action="save")) == 3


async def test_an_invalid_login_or_action_is_rejected_as_a_filter(client: AuditClient) -> None:
    for params in ({"actor": "\0"}, {"actor": "a b"}, {"action": "\0"}, {"action": "Save"}):
        reply = await client.get(**params)
        assert (reply.status_code, reply.json()["code"]) == (400, "malformed-parameter")
    await client.app.save(client.editor, {"n": 1})
    assert len(await client.list_entries(actor="ED", action="save")) == 1


async def test_checkpoints_are_written_later_if_their_file_is_unavailable(
    client: AuditClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = client.app.settings.checkpoints_file
    writer = client.app.process.audit.chain_writer
    monkeypatch.setattr(writer._checkpoint_file, "_path", path.parent / "missing" / "x.jsonl")
    for n in range(2):
        await client.app.save(client.editor, {"n": n})
        assert (await client.get("/audit/checkpoints")).status_code == 200
    monkeypatch.setattr(writer._checkpoint_file, "_path", path)
    await writer.sign_checkpoint()
    written = [parse_checkpoint(line) for line in path.read_bytes().splitlines()]
    assert written == await client.app.process.stores.audit.list_checkpoints()
    assert len(written) >= 2
    pages, after = [], "0"
    while after is not None:
        page = (await client.get("/audit/checkpoints", limit="1", after=after)).json()
        pages.append([one["checkpoint"] for one in page["checkpoints"]])
        after = page["next"]
    assert pages == [[one.number] for one in written if one is not None]


async def test_a_truncated_chain_and_an_entry_outside_the_chain_are_detected(client: AuditClient) -> None:
    for n in range(8):
        await client.app.save(client.editor, {"n": n})
    await client.app.process.audit.chain_writer.append_entries()
    signed = await client.app.process.audit.chain_writer.sign_checkpoint()
    assert signed is not None
    await client.app.execute_sql(
        "DELETE FROM audit WHERE id IN (SELECT audit_id FROM audit_links WHERE number > $1)", signed.number - 2
    )
    await client.app.execute_sql("DELETE FROM audit_links WHERE number > $1", signed.number - 2)
    result = (await client.app.request("GET", "/audit/verify", token=client.admin)).json()
    assert result["first_bad"]["number"] == signed.number - 1
    assert "signed" in result["first_bad"]["why"]
    await client.app.execute_sql(
        "INSERT INTO audit (id, at, action, outcome, mac) VALUES (-1, 1, 'save', 'created', $1)", b"m" * 32
    )
    assert (await client.app.request("GET", "/audit/verify", token=client.admin)).json()["unlinked"] == 1


async def recompute_chain(client: AuditClient) -> None:
    """Recompute the chain over the remaining entries, as an attacker of the database can."""
    link = FIRST_LINK
    entries = [
        one
        for one in await client.app.process.stores.audit.list_chained(after=0, limit=1_000)
        if isinstance(one, ChainedEntry) and one.entry is not None
    ]
    ids = await client.app.execute_sql(
        "SELECT l.audit_id FROM audit_links l JOIN audit a ON a.id = l.audit_id ORDER BY l.number"
    )
    await client.app.execute_sql("DELETE FROM audit_links")
    for number, (one, (audit_id,)) in enumerate(zip(entries, ids, strict=True), 1):
        link = compute_link(link, number, one.entry or b"", one.mac)
        await client.app.execute_sql(
            "INSERT INTO audit_links (number, audit_id, link) VALUES ($1, $2, $3)", number, audit_id, link
        )


@pytest.mark.parametrize("has_checkpoint_file", [True, False])
async def test_a_deleted_entry_is_detected_by_checkpoints_after_the_chain_is_recomputed(
    client: AuditClient, *, has_checkpoint_file: bool
) -> None:
    for n in range(8):
        await client.app.save(client.editor, {"n": n})
    await client.app.process.audit.chain_writer.append_entries()
    signed = await client.app.process.audit.chain_writer.sign_checkpoint()
    assert signed is not None
    await client.app.execute_sql("DELETE FROM audit WHERE " + ENTRY, 3)
    await recompute_chain(client)
    if has_checkpoint_file:
        await client.app.execute_sql("DELETE FROM checkpoints")
    else:
        client.app.settings.checkpoints_file.unlink()
        forged = (await client.app.process.stores.audit.read_link(signed.number - 1)) or b""
        await client.app.execute_sql("UPDATE checkpoints SET number = number - 1, link = $1", forged)
    result = (await client.app.request("GET", "/audit/verify", token=client.admin)).json()
    assert not result["ok"]
    assert "signed" in result["first_bad"]["why"]


async def test_a_verification_cannot_start_after_the_end_of_the_chain(client: AuditClient) -> None:
    assert (await client.get("/audit/verify", after="999999")).json()["code"] == "invalid-cursor"


async def test_several_writers_chain_each_entry_once_within_a_second(client: AuditClient) -> None:
    writer = client.app.process.audit.chain_writer
    running = [asyncio.create_task(writer.run()) for _ in range(3)]
    await asyncio.gather(*(client.app.save(client.editor, {"n": n}, type_=f"t{n % 7}") for n in range(100)))
    await asyncio.sleep(1.0)  # the promised time
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    result = (await client.app.request("GET", "/audit/verify", token=client.admin)).json()
    assert result["ok"]
    assert result["checked"] >= 100
    ((entries,),) = await client.app.execute_sql("SELECT count(*) FROM audit")
    assert entries == result["checked"]


async def list_findings(client: AuditClient) -> list[str]:
    await client.app.process.audit.chain_writer.append_entries()
    result = (await client.get("/audit/verify")).json()
    assert result["ok"] is not bool(result["findings"])
    return list(result["findings"])


async def test_a_verification_finds_what_was_changed_in_the_store(client: AuditClient, engine: str) -> None:
    for n in range(3):
        await client.app.save(client.editor, {"n": n})
        await client.app.save(client.editor, {"n": n}, tenant="acme2")
    await client.app.request("DELETE", "/tenants/acme2?confirm=acme2", token=client.admin)
    assert await list_findings(client) == []
    await client.app.execute_sql("UPDATE users SET disabled = 1 WHERE login = 'ed'")
    assert await list_findings(client) == ["row users 2 was changed without Confide"]
    await client.app.execute_sql("UPDATE users SET disabled = 0 WHERE login = 'ed'")
    await client.app.execute_sql(
        "INSERT INTO changes (kind, tenant, integration_type, version, saved_at) VALUES ('retired', 'acme', $1, 4, 1)",
        TYPE,
    )
    assert await list_findings(client) == [f"version 4 of acme : {TYPE} has no audit entry"]
    await client.app.execute_sql("DELETE FROM changes WHERE tenant = 'acme' AND version > 2")
    assert await list_findings(client) == [f"version 3 of acme : {TYPE} has an audit entry and was removed"]


TRIGGERS = {
    "sqlite": ["CREATE TRIGGER hide AFTER INSERT ON audit BEGIN DELETE FROM audit WHERE id = NEW.id; END"],
    "postgresql": [
        "CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER hide BEFORE INSERT ON audit FOR EACH ROW WHEN (NEW.action = 'login') EXECUTE FUNCTION hide()",
    ],
}


async def test_a_verification_finds_triggers_rules_and_missing_indexes(client: AuditClient, engine: str) -> None:
    assert await list_findings(client) == []
    for text in TRIGGERS[engine]:
        await client.app.execute_sql(text)
    name = "trigger hide on audit" if engine == "postgresql" else "trigger hide"
    assert (await client.get("/audit/verify")).json()["findings"] == [f"{name} is not part of the schema"]
    await client.app.execute_sql("DROP TRIGGER hide ON audit" if engine == "postgresql" else "DROP TRIGGER hide")
    await client.app.execute_sql("DROP INDEX changes_version")
    assert await list_findings(client) == ["index changes_version of the schema is missing"]


def let_time_pass(client: AuditClient, seconds: int) -> None:
    """Let the later entries of the process have a later time."""
    recorder = client.app.process.audit.recorder
    clock = recorder._clock
    recorder._clock = lambda: clock() + seconds * MICROSECONDS_PER_SECOND


async def test_a_copy_of_an_entry_is_found(client: AuditClient) -> None:
    await client.app.save(client.editor, {"n": 1})
    assert await list_findings(client) == []
    columns = ", ".join((*EntryRow._fields, "change_id"))
    await client.app.execute_sql(f"INSERT INTO audit ({columns}) SELECT {columns} FROM audit WHERE action = 'save'")
    findings = await list_findings(client)
    assert len(findings) == 1
    assert findings[0].endswith("is a copy of another entry")


async def test_an_entry_that_was_removed_before_it_was_chained_is_found(client: AuditClient) -> None:
    await client.app.request("POST", "/user", token=client.editor, json={"login": "eve", "password": PASSWORD})
    await client.app.execute_sql("DELETE FROM audit WHERE action = 'add user' AND outcome = 'denied'")
    let_time_pass(client, 1)
    await client.app.save(client.editor, {"n": 1})
    assert await list_findings(client) == [], "the entry may still be stored"
    let_time_pass(client, 60)
    await client.app.save(client.editor, {"n": 2})
    findings = await list_findings(client)
    assert len(findings) == 1
    assert re.fullmatch("entry [0-9]+ of the process [0-9a-f]{16} is missing", findings[0])


async def test_the_number_of_an_entry_that_lost_a_race_is_not_missing(client: AuditClient) -> None:
    await client.app.save(client.editor, {"n": 1})
    stores, recorder = client.app.process.stores, client.app.process.audit.recorder
    key = ConfigKey("acme", TYPE)
    for _ in range(3):
        draft = recorder.sign("save", "updated", principal=None, key=key, version=1)
        lost = NewVersion(key, 1, Kind.DELETED, None, data_key_id=None, saved_by=1, saved_at=1)
        change = SlotChange(find_config_slot(*key))
        with pytest.raises(Superseded):
            await stores.configs.append(lost, audit=draft, idempotency=None, epoch=stores.epoch.value, change=change)
    let_time_pass(client, 60)
    for n in range(2, 4):
        await client.app.save(client.editor, {"n": n})
        let_time_pass(client, 60)
    assert await list_findings(client) == []


async def test_a_row_of_an_earlier_state_and_a_removed_row_are_found(client: AuditClient) -> None:
    made = await client.app.request("POST", "/tokens", token=client.admin, json={"label": "robot"})
    assert made.status_code == 200, made.text
    number = made.json()["id"]
    columns = "expires_at, kept_until, counter, mac"
    (before,) = await client.app.execute_sql(f"SELECT {columns} FROM tokens WHERE id = $1", number)
    assert (await client.app.request("DELETE", f"/tokens/{number}", token=client.admin)).status_code < 300
    assert await list_findings(client) == []
    put_back = "UPDATE tokens SET expires_at = $2, kept_until = $3, counter = $4, mac = $5 WHERE id = $1"
    await client.app.execute_sql(put_back, number, *before)
    assert await list_findings(client) == [
        f"row tokens {number} was put back: its counter is 1, and the audit log has 2"
    ]
    await client.app.execute_sql("DELETE FROM tokens WHERE id = $1", number)
    assert await list_findings(client) == [f"row tokens {number} was removed without Confide"]
