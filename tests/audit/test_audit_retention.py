"""Old audit entries are removed, and the rest of the hash chain still proves that nothing else is missing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from confide.audit import retention, retention_store
from confide.audit.chain import ChainCheck, ChainedEntry, Removal
from confide.audit.retention import AuditRetention
from confide.cli.audit import verify
from confide.clock import read_wall_clock
from confide.configs.retention import Retention
from confide.server.preparation import prepare
from support.app import ADMIN, TYPE, RunningApp

DAY = 24 * 60 * 60 * 1_000_000
# The clock of the retention is 400 days ahead, so every entry is old.
DAYS, LATER_DAYS = 365, 400
SAVES = 30


class Auditor:
    """An admin, an audit log with old entries of all kinds, and the database access of an attacker."""

    def __init__(self, app: RunningApp, admin: str) -> None:
        self.app, self.admin = app, admin

    async def fill(self) -> None:
        """Add entries of saves, denials, logins, users, types and a destroyed tenant, and sign the chain."""
        viewer = await self.app.create_token("vi", ("viewer", "acme", "*"))
        for number in range(SAVES):
            await self.app.save(self.admin, {"n": number}, tenant=f"t{number % 2}")
            if number % 10 == 0:
                await self.app.request("PUT", f"/integration-types/{TYPE}", token=self.admin, json={"keep": 5 + number})
                await self.app.read(viewer, tenant=f"foreign{number}")
        await self.app.save(self.admin, {"n": 1}, tenant="gone")
        destroyed = await self.app.request("DELETE", "/tenants/gone", token=self.admin, params={"confirm": "gone"})
        assert destroyed.status_code == 200, destroyed.text
        await self.sign()

    async def sign(self) -> None:
        await self.app.process.audit.chain_writer.append_entries()
        await self.app.process.audit.chain_writer.sign_checkpoint()

    def build_retention(self, *, days: int = DAYS, later_days: int = LATER_DAYS) -> AuditRetention:
        stores = self.app.process.stores
        return AuditRetention(
            stores.audit,
            stores.audit_retention,
            self.app.process.encryption,
            claim_job=stores.retention.claim_job,
            clock=lambda: read_wall_clock() + later_days * DAY,
            days=days,
        )

    async def trim(self, **options: int) -> int:
        """Trim the change log, and then remove the old entries of the audit log."""
        stores, active = self.app.process.stores, self.app.process.types.active
        later_days = options.get("later_days", LATER_DAYS)
        await Retention(
            stores.retention, active, clock=lambda: read_wall_clock() + later_days * DAY, log_days=DAYS
        ).trim()
        return await self.build_retention(**options).trim()

    async def list_actions(self) -> list[tuple[str, str, str | None, int | None]]:
        """List action, outcome, tenant and version of each stored entry."""
        rows = [row async for table, row in self.app.process.stores.database.dump() if table == "audit"]
        return [(row[2], row[3], row[8], row[10]) for row in rows]

    async def list_removals(self) -> list[Removal]:
        return await self.app.process.stores.audit.list_removals()

    async def verify(self) -> Any:
        return (await self.app.request("GET", "/audit/verify", token=self.admin)).json()

    async def export(self, *, limit: int = 1_000) -> bytes:
        """Export the chain in pages, and its checkpoints, as the command does."""
        text, after = b"", "0"
        while True:
            params = {"after": after, "limit": str(limit)}
            page = (await self.app.request("GET", "/audit/export", token=self.admin, params=params)).content
            if not page:
                break
            text += page
            after = page[page.rindex(b'{"number":') + 10 :].split(b",", 1)[0].decode()
        listed = (await self.app.request("GET", "/audit/checkpoints", token=self.admin)).json()
        return text + b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in listed["checkpoints"])

    async def verify_offline(self, folder: Path) -> str:
        file = folder / "audit.jsonl"
        file.write_bytes(await self.export())
        key = self.app.process.encryption.public_key.hex()
        done = CliRunner().invoke(verify, [str(file), "--key", key], standalone_mode=False)
        assert done.exception is None
        return done.output


@pytest.fixture
async def auditor(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> Auditor:
    monkeypatch.setattr(retention_store, "KEPT_CHANGES", 1)
    found = Auditor(app, await app.create_token("root", *ADMIN))
    await found.fill()
    return found


async def test_removed_entries_leave_a_chain_that_is_still_proven(auditor: Auditor, tmp_path: Path) -> None:
    before = await auditor.list_actions()
    removed = await auditor.trim()
    after = await auditor.list_actions()
    assert len(before) - len(after) == removed >= SAVES
    result = await auditor.verify()
    assert (result["ok"], result["checked"], result["removed"]) == (True, len(before), removed)
    offline = await auditor.verify_offline(tmp_path)
    assert f"{len(before)} entries are in order and unaltered; the retention removed {removed} of them;" in offline
    listed = (await auditor.app.request("GET", "/audit", token=auditor.admin, params={"limit": "1000"})).json()
    assert len(listed["entries"]) == len(after)


async def test_entries_of_identity_types_destruction_and_current_versions_stay(auditor: Auditor) -> None:
    before = await auditor.list_actions()
    await auditor.trim()
    after = await auditor.list_actions()
    kept = ("add user", "put type", "destroy tenant", "add token")
    assert [one for one in after if one[0] in kept] == [one for one in before if one[0] in kept]
    assert {action for action, *_ in after} >= {"add user", "put type", "destroy tenant"}
    saves = [(tenant, version) for action, _, tenant, version in after if action == "save" and tenant != "gone"]
    assert saves == [("t0", SAVES // 2), ("t1", SAVES // 2)]
    assert not [one for one in after if one[1] == "denied"]


async def test_recent_and_unsigned_entries_stay(auditor: Auditor) -> None:
    before = await auditor.list_actions()
    assert await auditor.trim(later_days=DAYS - 1) == 0
    await auditor.app.save(auditor.admin, {"n": 1}, tenant="unsigned")
    await auditor.app.save(auditor.admin, {"n": 2}, tenant="unsigned")
    await auditor.app.process.audit.chain_writer.append_entries()
    await auditor.trim()
    assert (await auditor.list_actions())[-2:] == [
        ("save", "created", "unsigned", 1),
        ("save", "updated", "unsigned", 2),
    ]
    assert len(before) > len(await auditor.list_actions())


async def test_the_entries_of_the_latest_changes_stay(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_store, "KEPT_CHANGES", 10)
    latest = [one for one in await auditor.list_actions() if one[1] != "denied"][-10:]
    await auditor.trim()
    assert [one for one in await auditor.list_actions() if one[1] != "denied"][-10:] == latest


async def test_later_removals_are_joined_with_earlier_ones(
    auditor: Auditor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_SIZE", 4)
    total = await auditor.trim()
    stretches = len(await auditor.list_removals())
    for number in range(3):
        for _ in range(5):
            await auditor.app.save(auditor.admin, {"again": number}, tenant="t0")
            await auditor.app.save(auditor.admin, {"and": number}, tenant="t0")
        await auditor.sign()
        total += await auditor.trim()
        result = await auditor.verify()
        assert (result["ok"], result["removed"]) == (True, total)
    assert "unaltered; the retention removed" in await auditor.verify_offline(tmp_path)
    # At most one more, for the entries after the last one that stayed.
    assert len(await auditor.list_removals()) <= stretches + 1


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1_000])
async def test_every_page_size_exports_the_same_chain(auditor: Auditor, limit: int) -> None:
    await auditor.trim()
    assert await auditor.export(limit=limit) == await auditor.export()


async def test_entries_that_are_removed_during_a_verification_do_not_count_as_missing(auditor: Auditor) -> None:
    audit = auditor.app.process.stores.audit
    check = ChainCheck([])
    first_page = await audit.list_chained(after=0, limit=7)
    assert check.verify_next(first_page)
    await auditor.trim()
    while parts := await audit.list_chained(after=check.number, limit=7):
        assert check.verify_next(parts), check.bad
    assert check.finish() is None


FORGER = Ed25519PrivateKey.generate()


async def find_stretch(auditor: Auditor) -> Removal:
    return max(await auditor.list_removals(), key=lambda one: one.last - one.first)


async def delete_kept_entry(auditor: Auditor) -> None:
    number = (await find_stretch(auditor)).last + 1
    await auditor.app.execute_sql(
        "DELETE FROM audit WHERE id = (SELECT audit_id FROM audit_links WHERE number = $1)", number
    )
    await auditor.app.execute_sql("DELETE FROM audit_links WHERE number = $1", number)


async def delete_removal(auditor: Auditor) -> None:
    await auditor.app.execute_sql(
        "DELETE FROM audit_removals WHERE first_number = $1", (await find_stretch(auditor)).first
    )


async def widen_removal(auditor: Auditor) -> None:
    """Let a removal include the entry after it, whose link the attacker knows."""
    stretch = await find_stretch(auditor)
    ((link,),) = await auditor.app.execute_sql("SELECT link FROM audit_links WHERE number = $1", stretch.last + 1)
    await auditor.app.execute_sql("DELETE FROM audit_links WHERE number = $1", stretch.last + 1)
    await auditor.app.execute_sql(
        "UPDATE audit_removals SET last_number = $1, link = $2 WHERE first_number = $3",
        stretch.last + 1,
        bytes(link),
        stretch.first,
    )


async def forge_removal(auditor: Auditor) -> None:
    """Replace an entry by a removal that is signed with another key."""
    entries = list(await auditor.app.process.stores.audit.list_chained(after=0, limit=1_000))
    before, after = next(
        (one, other)
        for one, other in itertools.pairwise(entries)
        if isinstance(one, ChainedEntry) and isinstance(other, ChainedEntry)
    )
    unsigned = Removal(
        after.number, after.number, before.link, after.link, 1, FORGER.public_key().public_bytes_raw(), b""
    )
    await auditor.app.execute_sql("DELETE FROM audit_links WHERE number = $1", after.number)
    await auditor.app.execute_sql(
        "INSERT INTO audit_removals (first_number, last_number, previous_link, link, at, public_key, signature)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        unsigned.first,
        unsigned.last,
        unsigned.previous_link,
        unsigned.link,
        unsigned.at,
        unsigned.public_key,
        FORGER.sign(unsigned.encode_signed_part()),
    )


@pytest.mark.parametrize("tamper", [delete_kept_entry, delete_removal, widen_removal, forge_removal])
async def test_tampering_with_removals_and_with_what_they_left_is_detected(
    auditor: Auditor, tmp_path: Path, tamper: Any
) -> None:
    await auditor.trim()
    assert (await auditor.verify())["ok"]
    await tamper(auditor)
    result = await auditor.verify()
    assert (result["ok"], result["first_bad"] is None) == (False, False)
    assert (await auditor.verify_offline(tmp_path)).startswith("BAD: ")


async def test_an_altered_entry_is_not_removed_and_stays_detected(auditor: Auditor) -> None:
    # An attacker makes an entry look removable.
    await auditor.app.execute_sql(
        "UPDATE audit SET action = 'save', outcome = 'denied' WHERE action = 'destroy tenant'"
    )
    number = (await auditor.verify())["first_bad"]["number"]
    await auditor.trim()
    assert (await auditor.verify())["first_bad"]["number"] == number


async def test_a_start_does_not_take_removed_checkpoints_for_lost_commits(auditor: Auditor) -> None:
    for number in range(3):
        await auditor.app.save(auditor.admin, {"n": number}, tenant="t0")
        await auditor.app.read(auditor.admin, tenant="missing")
        await auditor.sign()
    written = auditor.app.process.settings.checkpoints_file.read_text()
    await auditor.app.save(auditor.admin, {"n": "last"}, tenant="t0")
    await auditor.sign()
    assert await auditor.trim()
    numbers = {json.loads(line)["checkpoint"] for line in written.splitlines()}
    assert any(one.first <= number < one.last for one in await auditor.list_removals() for number in numbers)
    assert (await prepare(auditor.app.settings)).database.epoch == auditor.app.process.database.epoch


async def test_without_a_number_of_days_nothing_is_removed(auditor: Auditor) -> None:
    before = await auditor.list_actions()
    assert auditor.app.settings.audit_days == 0
    await auditor.build_retention(days=0).run_due_job()
    assert await auditor.list_actions() == before
    await auditor.build_retention().run_due_job()
    assert len(await auditor.list_actions()) < len(before)


async def test_entries_of_versions_that_the_change_log_has_stay(auditor: Auditor) -> None:
    saves = [one for one in await auditor.list_actions() if one[0] == "save"]
    assert await auditor.build_retention().trim() >= 1
    assert [one for one in await auditor.list_actions() if one[0] == "save"] == saves
