"""After a restore, a move or a loss of commits, older entity tags and positions no longer match."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from confide.changes.model import Change
from confide.configs import store as config_store
from confide.database import backup
from confide.database.engine import Transaction, statement
from confide.database.identity import STORE_ROW, UPDATE_STORE, StoreRow
from confide.database.model import TableRow
from confide.database.schema import list_tables
from confide.database.signed_rows import RowSigner
from confide.epoch import Epoch
from confide.server.settings import Settings
from support.app import ADMIN, TYPE, RunningApp, build_settings, start_app
from support.rows import KEY, append, build_version, open_store

ANOTHER_EPOCH = Epoch("f00df00df00df00d", 2)


async def execute(app: RunningApp, sql: str, *args: Any) -> None:
    def run() -> Transaction[None]:
        yield statement(sql, *args)

    await app.process.stores.engine.transact(run())


async def build_move(app: RunningApp) -> list[Any]:
    """Build the change of a store that another place signed."""
    ((*row,),) = await app.process.stores.engine.query(f"SELECT {STORE_ROW}")
    return [UPDATE_STORE, *app.process.stores.rows.sign("store", StoreRow(*row), home="elsewhere")]


async def begin_another_epoch(app: RunningApp) -> None:
    """Begin another epoch as another process does. The app does not know it yet."""
    await execute(app, "UPDATE store SET epoch = $1, epoch_number = $2", *ANOTHER_EPOCH)


async def put_type(app: RunningApp, token: str, keep: int, **more: Any) -> Any:
    return await app.request("PUT", f"/integration-types/{TYPE}", token=token, json={"keep": keep}, **more)


async def test_tags_of_before_a_move_do_not_match(settings: Settings) -> None:
    async with start_app(settings) as app:
        token = await app.create_token("root", *ADMIN, token_grants=ADMIN)  # sessions end with the epoch
        assert (await app.save(token, {"n": 1})).headers["etag"] == '"1"'
        assert (await put_type(app, token, 7)).headers["etag"] == '"1"'
        await execute(app, *await build_move(app))
    async with start_app(settings) as app:
        part = app.process.database.epoch.id[:8]
        read = await app.read(token, headers={"If-None-Match": '"1"'})
        assert (read.status_code, read.headers["etag"]) == (200, f'"1-{part}"')
        assert (await app.read(token, headers={"If-None-Match": f'"1-{part}"'})).status_code == 304
        assert (await app.read(token, headers={"If-Match": '"1"'})).status_code == 412
        old = await app.save(token, {"n": 2}, headers={"If-Match": '"1"'})
        assert (old.status_code, old.json()["code"], old.headers["etag"]) == (412, "version-conflict", f'"1-{part}"')
        new = await app.save(token, {"n": 2}, headers={"If-Match": f'"1-{part}"'})
        assert (new.status_code, new.headers["etag"], new.headers["config-version"]) == (200, f'"2-{part}"', "2")
        assert (await put_type(app, token, 8, headers={"If-Match": '"1"'})).status_code == 412
        changed = await put_type(app, token, 8, headers={"If-Match": f'"1-{part}"'})
        assert (changed.status_code, changed.headers["etag"]) == (200, f'"2-{part}"')


async def test_a_database_keeps_its_first_epoch_over_restarts(settings: Settings) -> None:
    async with start_app(settings) as app:
        token = await app.create_token("root", *ADMIN)
        tag = (await app.save(token, {"n": 1})).headers["etag"]
    async with start_app(settings) as app:
        assert (await app.read(token)).headers["etag"] == tag == '"1"'


async def test_a_save_that_was_planned_in_an_earlier_epoch_is_planned_again(app: RunningApp) -> None:
    token = await app.create_token("root", *ADMIN)
    await app.save(token, {"n": 1})
    await begin_another_epoch(app)
    old = await app.save(token, {"n": 2}, headers={"If-Match": '"1"'})
    assert (old.status_code, old.headers["etag"]) == (412, '"1-f00df00d"')
    assert (await app.save(token, {"n": 2})).headers["etag"] == '"2-f00df00d"'
    assert app.process.stores.epoch.value == ANOTHER_EPOCH


async def hold_the_feed(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the change feed deliver nothing more, so that only a save can learn of another epoch."""
    is_held = asyncio.Event()

    async def read_nothing() -> list[Change]:
        is_held.set()
        await asyncio.sleep(0.05)  # otherwise the subscriber would never let other tasks run
        return []

    monkeypatch.setattr(app.process.stores.change_feed, "read", read_nothing)
    await is_held.wait()


async def overwrite_in_another_epoch(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> int:
    """Save with a tag of the epoch that ended, and return the status."""
    token = await app.create_token("root", *ADMIN)
    await app.save(token, {"n": 1})
    await hold_the_feed(app, monkeypatch)
    await begin_another_epoch(app)
    return int((await app.save(token, {"n": 2}, headers={"If-Match": '"1"'})).status_code)


async def test_a_tag_of_the_epoch_that_ended_does_not_overwrite(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await overwrite_in_another_epoch(app, monkeypatch) == 412


async def test_without_the_epoch_in_the_append_a_tag_of_the_epoch_that_ended_overwrites(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deliberate fault: the statement does not compare the epoch."""
    for name in ("SQLITE_APPEND", "POSTGRESQL_APPEND"):
        sql = getattr(config_store, name)
        assert "(SELECT epoch FROM store) =" in sql
        monkeypatch.setattr(config_store, name, sql.replace("(SELECT epoch FROM store) =", "'' <>"))
    assert await overwrite_in_another_epoch(app, monkeypatch) == 200


async def test_a_delete_that_was_planned_in_an_earlier_epoch_is_planned_again(app: RunningApp) -> None:
    token = await app.create_token("root", *ADMIN)
    await app.save(token, {"n": 1})
    await begin_another_epoch(app)
    params = {"tenant": "acme", "integration_type": TYPE}
    old = await app.request("DELETE", "/config", token=token, params=params, headers={"If-Match": '"1"'})
    assert old.status_code == 412
    assert (await app.read(token)).status_code == 200


async def test_a_retry_with_an_idempotency_key_is_planned_again_in_the_next_epoch(app: RunningApp) -> None:
    token = await app.create_token("root", *ADMIN)
    await app.save(token, {"n": 1})
    await begin_another_epoch(app)
    headers = {"Idempotency-Key": "k"}
    assert (await app.save(token, {"n": 2}, headers=headers)).headers["etag"] == '"2-f00df00d"'
    assert (await app.save(token, {"n": 2}, headers=headers)).headers["idempotency-replayed"] == "true"


async def test_a_type_that_was_changed_in_an_earlier_epoch_is_not_changed(app: RunningApp) -> None:
    token = await app.create_token("root", *ADMIN)
    await put_type(app, token, 7)
    await begin_another_epoch(app)
    assert (await put_type(app, token, 8, headers={"If-Match": '"1"'})).status_code == 412
    assert (await put_type(app, token, 8)).headers["etag"] == '"2-f00df00d"'


async def test_saves_of_one_batch_know_their_own_epochs(settings: Settings) -> None:
    """A batch can hold a save that was planned before the epoch ended, and one that was planned after."""
    store = await open_store(settings)
    row = build_version(1)
    assert await append(store, row)
    found = store.epoch.value
    store.epoch.value = ANOTHER_EPOCH
    assert not await append(store, build_version(2))
    assert store.epoch.value == found
    assert await append(store, build_version(2))
    await store.close()


async def lose_the_end(settings: Settings) -> tuple[str, int]:
    """Sign a checkpoint and remove the entries that it covers. Return a token and the number of the checkpoint."""
    async with start_app(settings) as app:
        token = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        await app.save(token, {"n": 1})
        await app.process.audit.chain_writer.append_entries()
        first = await app.process.audit.chain_writer.sign_checkpoint()
        await app.save(token, {"n": 2})
        await app.process.audit.chain_writer.append_entries()
        last = await app.process.audit.chain_writer.sign_checkpoint()
        assert first is not None
        assert last is not None
        await execute(app, "DELETE FROM checkpoints WHERE number > $1", first.number)
        lost = "(SELECT audit_id FROM audit_links WHERE number > $1)"
        await execute(
            app, f"DELETE FROM changes WHERE id IN (SELECT change_id FROM audit WHERE id IN {lost})", first.number
        )
        await execute(app, f"DELETE FROM audit WHERE id IN {lost}", first.number)
        await execute(app, "DELETE FROM audit_links WHERE number > $1", first.number)
        return token, last.number


async def test_the_checkpoint_file_notices_a_loss_after_a_total_restart(settings: Settings) -> None:
    token, lost_number = await lose_the_end(settings)
    async with start_app(settings) as app:
        epoch = app.process.database.epoch
        assert epoch.number == 2
        assert (await app.save(token, {"n": 3})).headers["etag"] == f'"2-{epoch.id[:8]}"'
        await app.process.audit.chain_writer.append_entries()
        entries = await app.request("GET", "/audit", token=token, params={"action": "begin epoch"})
        (entry,) = entries.json()["entries"]
        assert entry["subject"].endswith(f"; missing checkpoint {lost_number}")
        verified = (await app.request("GET", "/audit/verify", token=token)).json()
        assert (verified["ok"], verified["first_bad"]) == (False, None)
        assert [(one["first"], one["last"]) for one in verified["lost"]] == [(lost_number, lost_number)]
    async with start_app(settings) as app:
        assert app.process.database.epoch == epoch, "the loss is recorded, so it ends no further epoch"


async def test_a_removed_end_is_not_a_recorded_loss(settings: Settings) -> None:
    """An attacker who removes the end of the audit log while the service runs is still accused."""
    token, _ = await lose_the_end(settings)
    settings.checkpoints_file.rename(settings.checkpoints_file.with_suffix(".kept"))
    async with start_app(settings) as app:
        assert app.process.database.epoch.number == 1, "without the file, nothing tells that commits were lost"
        settings.checkpoints_file.with_suffix(".kept").rename(settings.checkpoints_file)
        verified = (await app.request("GET", "/audit/verify", token=token)).json()
        assert verified["lost"] == []
        assert "the end is missing" in verified["first_bad"]["why"]


@pytest.mark.parametrize("schema_number", [1, 2])
async def test_a_backup_of_an_older_schema_is_restored_in_its_second_epoch(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema_number: int
) -> None:
    store = await open_store(build_settings(tmp_path / "source", None))
    assert await append(store, build_version(1))
    tables = list_tables(schema_number)
    rows = [TableRow(table, row[: len(tables[table])]) async for table, row in store.database.dump() if table in tables]
    await store.close()

    class OldDatabase:
        async def dump(self) -> Any:
            for row in rows:
                yield row

    archive = tmp_path / "backup"
    monkeypatch.setattr(backup, "get_schema_number", lambda _: schema_number)
    await backup.write(OldDatabase(), archive, RowSigner(), key=None, progress=lambda _: None)  # type: ignore[arg-type]
    monkeypatch.undo()
    restored = await open_store(settings)
    await restored.database.load(backup.read(archive, RowSigner(), header=backup.read_header(archive)))
    assert (await restored.database.open()).epoch.number == 2
    assert await restored.configs.read(KEY) is not None
    await restored.close()
