"""An asynchronous failover that loses acknowledged commits is noticed and named, and lost content is never served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from confide.database.postgresql.continuity import Continuity
from confide.epoch import Epoch
from confide.names import ConfigKey
from support.app import ADMIN, RunningApp, build_settings, start_app
from support.asynchronous_failover import Failover, prepare_failover
from support.waiting import MAX_WAIT_SECONDS, wait_until_async

ENTRIES = "SELECT outcome, subject FROM audit WHERE action = 'begin epoch' ORDER BY id"


@pytest.fixture
async def failover() -> AsyncIterator[Failover]:
    async with prepare_failover() as prepared:
        yield prepared


async def save_when_available(app: RunningApp, token: str, configuration: Any, **more: Any) -> Any:
    """Save again and again until the database answers."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            reply = await app.save(token, configuration, **more)
            if reply.status_code != 503 or reply.json()["code"] != "store-unavailable":
                return reply
            await asyncio.sleep(0.05)


async def wait_for_feed(app: RunningApp, is_true: Callable[[], bool]) -> None:
    await wait_until_async(is_true, "the change feed has read")
    await wait_until_async(app.process.caching.lease.is_valid, "the lease is valid")


async def lose_a_version(app: RunningApp, failover: Failover, token: str) -> tuple[str, str]:
    """Save a version that the failover loses. Return its tag and the position after it."""
    await app.save(token, {"n": "kept"})
    await failover.stop_receiving()
    lost = await app.save(token, {"n": "lost"})
    assert lost.headers["etag"] == '"2"'
    position = (await app.request("GET", "/watch", token=token, params={"after": "0", "wait": "30"})).json()["position"]
    assert (await app.read(token)).json()["configuration"] == {"n": "lost"}
    await failover.fail_over()
    return lost.headers["etag"], position


async def find_faults(app: RunningApp, failover: Failover, token: str) -> list[str]:
    """Lose a version, save another one of the same number, and list what a client can mistake for it."""
    tag, position = await lose_a_version(app, failover, token)
    overwritten = await save_when_available(app, token, {"n": "overwritten"}, headers={"If-Match": tag})
    if overwritten.status_code != 412:
        return [f"If-Match with the lost tag answers {overwritten.status_code}"]
    faults = []
    saved = await save_when_available(app, token, {"n": "new"})
    read = await app.read(token, headers={"If-None-Match": tag})
    if read.status_code == 304:
        faults.append("If-None-Match with the lost tag is 304")
    elif read.json()["configuration"] != {"n": "new"}:
        faults.append("the lost content is served")
    if read.headers["etag"] != saved.headers["etag"]:
        faults.append("a read has another tag than the save")
    resumed = await app.request("GET", "/watch", token=token, params={"after": position, "wait": "0"})
    if resumed.status_code != 410:
        faults.append(f"a watcher resumes with {resumed.status_code}")
    return faults


async def test_lost_commits_end_the_epoch_before_anything_is_read_or_saved(tmp_path: Path, failover: Failover) -> None:
    async with start_app(build_settings(tmp_path / "data", failover.url)) as app:
        token = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        session = await app.create_token("ada", *ADMIN)
        assert await find_faults(app, failover, token) == []
        epoch = app.process.stores.epoch.value
        assert (await app.read(token)).headers["etag"] == f'"2-{epoch.id[:8]}"'
        assert (await app.read(session)).status_code == 401, "a lost logout must not leave a session"
        ((outcome, subject),) = await failover.fetch(ENTRIES)
        assert outcome == "commits lost"
        assert f"epoch {epoch.id} after {app.process.database.epoch.id}; signed 0; last " in str(subject)
        assert "; missing changes 1: " in str(subject)
        await check_that_the_old_primary_is_not_used(app, failover, token)


async def check_that_the_old_primary_is_not_used(app: RunningApp, failover: Failover, token: str) -> None:
    """Lead the address back to the old primary, which is writable and has the lost version."""
    await asyncio.to_thread(failover.primary.start)
    feed: Any = app.process.stores.change_feed
    await wait_for_feed(app, lambda: feed._epoch == app.process.stores.epoch.value)
    assert (await app.read(token)).json()["configuration"] == {"n": "new"}
    failover.redirect(failover.primary)
    await wait_until_async(lambda: feed._connection is None, "the feed has left the new primary")
    await wait_until_async(lambda: not app.process.caching.lease.is_valid(), "the lease has expired")
    assert (await app.save(token, {"n": "on the old primary"})).status_code == 503
    read = await app.read(token)
    assert (read.status_code, read.json()["configuration"]) == (200, {"n": "new"})
    assert read.headers["config-freshness"].startswith("stale")
    failover.redirect(failover.standby)
    assert (await save_when_available(app, token, {"n": "newer"})).headers["config-version"] == "3"


async def test_without_the_check_of_connections_lost_commits_are_mistaken(
    tmp_path: Path, failover: Failover, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deliberate fault: connections are not checked."""

    async def check_nothing(*_: Any) -> None:
        """Accept any server."""

    monkeypatch.setattr(Continuity, "check", check_nothing)
    async with start_app(build_settings(tmp_path / "data", failover.url)) as app:
        token = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        assert await find_faults(app, failover, token) != []


async def test_a_failover_that_loses_nothing_keeps_epoch_tags_positions_and_cache(
    tmp_path: Path, failover: Failover
) -> None:
    async with start_app(build_settings(tmp_path / "data", failover.url)) as app:
        session = await app.create_token("root", *ADMIN)
        keys = [f"type{number}" for number in range(20)]
        tags = [(await app.save(session, {"n": 1}, type_=key)).headers["etag"] for key in keys]
        position = (await app.request("GET", "/watch", token=session, params={"wait": "0"})).json()["position"]
        feed: Any = app.process.stores.change_feed
        await wait_until_async(lambda: app.process.changes.subscriber.applied >= len(keys), "the feed has the saves")
        reads = app.process.changes.subscriber
        covered = app.process.caching.memory._covered_period
        await wait_until_async(lambda: app.process.caching.memory._covered_period > covered + 1, "they are covered")
        await failover.wait_for_standby()
        memory = app.process.caching.memory
        before = (feed.connection_number, reads.resets)
        entries = {key: memory.peek(ConfigKey("acme", key)) for key in keys}
        await failover.fail_over()
        await wait_for_feed(app, lambda: feed.connection_number > before[0])
        replies = [await app.read(session, type_=key) for key in keys]
        assert [reply.headers["etag"] for reply in replies] == tags == ['"1"'] * len(keys)
        assert reads.resets == before[1]
        assert {key: memory.peek(ConfigKey("acme", key)) for key in keys} == entries, "memory was kept"
        assert not any(entry is None or entry.is_invalid for entry in entries.values())
        assert app.process.stores.epoch.value == app.process.database.epoch
        await save_when_available(app, session, {"n": 2}, type_=keys[0], headers={"If-Match": tags[0]})
        resumed = await app.request("GET", "/watch", token=session, params={"after": position, "wait": "30"})
        assert [event["version"] for event in resumed.json()["events"]] == [2]
        assert await failover.fetch(ENTRIES) == []


async def test_two_processes_that_notice_a_loss_begin_one_epoch(tmp_path: Path, failover: Failover) -> None:
    settings = build_settings(tmp_path / "data", failover.url)
    async with start_app(settings) as one, start_app(settings) as other:
        token = await one.create_token("root", *ADMIN, token_grants=ADMIN)
        apps = (one, other)
        await lose_a_version(one, failover, token)
        await asyncio.gather(*(save_when_available(app, token, {"by": n}) for n, app in enumerate(apps)))
        epochs = {app.process.stores.epoch.value for app in apps}
        assert await failover.fetch("SELECT epoch, epoch_number FROM store") == list(epochs)
        assert [epoch.number for epoch in epochs] == [2]
        assert len(await failover.fetch(ENTRIES)) == 1


async def test_a_process_notices_the_loss_of_a_change_that_another_one_committed(
    tmp_path: Path, failover: Failover
) -> None:
    settings = build_settings(tmp_path / "data", failover.url)
    async with start_app(settings) as reader:
        token = await reader.create_token("root", *ADMIN, token_grants=ADMIN)
        await failover.stop_receiving()
        async with start_app(settings) as writer:
            applied = reader.process.changes.subscriber.applied
            await writer.save(token, {"n": "lost"})
            await wait_until_async(lambda: reader.process.changes.subscriber.applied > applied, "the feed has the save")
        await failover.fail_over()
        saved = await save_when_available(reader, token, {"n": "new"})
        epoch = reader.process.stores.epoch.value
        assert (epoch.number, saved.headers["etag"]) == (2, f'"1-{epoch.id[:8]}"')


async def test_a_lost_logout_ends_the_epoch(tmp_path: Path, failover: Failover) -> None:
    """A change that is not a version of a config is remembered too, although the feed has not read it."""
    async with start_app(build_settings(tmp_path / "data", failover.url)) as app:
        token = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        session = await app.create_token("ada", *ADMIN)
        await failover.stop_receiving()
        assert (await app.request("POST", "/logout", token=session)).status_code == 200
        await failover.fail_over()
        await save_when_available(app, token, {"n": 1})
        assert app.process.stores.epoch.value.number == 2
        assert (await app.read(session)).status_code == 401


async def test_a_lost_checkpoint_of_the_audit_chain_ends_the_epoch(tmp_path: Path, failover: Failover) -> None:
    """Some audit entries belong to no change. The checkpoint that covers them is remembered."""
    async with start_app(build_settings(tmp_path / "data", failover.url)) as app:
        token = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        other = await app.create_token("eve", ("viewer", "globex", "*"), token_grants=(("viewer", "globex", "*"),))
        await failover.stop_receiving()
        assert (await app.save(other, {"n": 1})).status_code in {403, 404}
        await app.process.audit.chain_writer.append_entries()
        checkpoint = await app.process.audit.chain_writer.sign_checkpoint()
        assert checkpoint is not None
        await failover.fail_over()
        await save_when_available(app, token, {"n": 1})
        assert app.process.stores.epoch.value.number == 2
        ((_, subject),) = await failover.fetch(ENTRIES)
        assert str(subject).endswith(f"; missing checkpoint {checkpoint.number}")
        await app.process.audit.chain_writer.append_entries()
        verified = (await app.request("GET", "/audit/verify", token=token)).json()
        assert (verified["ok"], verified["first_bad"]) == (False, None), (
            "the verification does not accuse an honest failover"
        )
        assert [one["last"] for one in verified["lost"]] == [checkpoint.number]


async def test_an_epoch_whose_begin_is_lost_is_not_entered_again(tmp_path: Path, failover: Failover) -> None:
    async with start_app(build_settings(tmp_path / "data", failover.url)) as app:
        token = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        await failover.wait_for_standby()
        await failover.stop_receiving()
        failover.primary.execute("CHECKPOINT")
        first = app.process.stores.epoch.value
        second = Epoch("f00df00df00df00d", 2)
        await app.process.stores.engine.query("UPDATE store SET epoch = $1, epoch_number = $2", *second)
        await app.save(token, {"n": "in the second epoch"})
        assert app.process.stores.epoch.value == second
        await failover.fail_over()
        await save_when_available(app, token, {"n": "new"})
        found = app.process.stores.epoch.value
        assert found.number == 3
        assert found.id not in {first.id, second.id}


async def test_a_check_that_fails_does_not_end_the_epoch(tmp_path: Path, failover: Failover) -> None:
    """The audit table cannot be read for a while, so nothing is known about the commits."""
    async with start_app(build_settings(tmp_path / "data", failover.url)) as app:
        token = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        await app.save(token, {"n": 1})
        await failover.wait_for_standby()
        await failover.fail_over()
        database = failover.url.rsplit("/", 1)[1]
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while (await failover.standby.fetch("SELECT pg_is_in_recovery()"))[0][0]:  # noqa: ASYNC110 - over SQL
                await asyncio.sleep(0.02)
        await failover.standby.fetch("ALTER TABLE audit RENAME TO hidden", database=database)
        assert (await app.save(token, {"n": 2})).status_code in {500, 503}
        await failover.standby.fetch("ALTER TABLE hidden RENAME TO audit", database=database)
        assert (await save_when_available(app, token, {"n": 2})).headers["etag"] == '"2"'
        assert app.process.stores.epoch.value == app.process.database.epoch
