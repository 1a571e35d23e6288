"""`/watch` over a real connection: each change once, in order, with resumption, while a grant allows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from confide.caching.stamps import SlotChange, find_token_slot
from confide.changes import routes
from confide.changes.watchers import Watcher
from confide.epoch import Epoch
from confide.identity.model import Credential, Scope
from confide.names import ConfigKey
from support.app import ADMIN, TYPE, RunningApp
from support.http_server import serve_app
from support.rows import append, build_version
from support.streams import Stream
from support.waiting import wait_until_async

OTHER = "crm"


@dataclass
class WatchClient:
    """Clients of an editor of all tenants and of a viewer of one tenant."""

    app: RunningApp
    port: int
    editor: str
    viewer: str

    async def save(self, n: int, *, tenant: str = "acme", type_: str = TYPE) -> Any:
        saved = await self.app.save(self.editor, {"n": n}, tenant=tenant, type_=type_)
        assert saved.status_code == 200
        return saved.json()["version"]

    def stream(self, token: str | None = None, *, last_id: str | None = None, **params: str) -> Stream:
        return Stream(self.port, token or self.viewer, params, last_id=last_id)

    async def poll(self, *, token: str | None = None, **params: str) -> Any:
        return await self.app.request("GET", "/watch", token=token or self.viewer, params=params)


@pytest_asyncio.fixture
async def client(app: RunningApp) -> AsyncIterator[WatchClient]:
    editor = await app.create_token("ed", ("editor", "*", "*"))
    viewer = await app.create_token("vi", ("viewer", "acme", "*"))
    async with serve_app(app) as port:
        yield WatchClient(app, port, editor, viewer)


async def test_each_change_is_sent_once_in_order_without_the_configuration(client: WatchClient) -> None:
    await client.save(0)
    async with client.stream() as stream:
        assert (stream.status, (await stream.read_event()).event) == (200, "ready")
        for n in range(1, 4):
            await client.save(n)
        await client.app.request(
            "DELETE", "/config", token=client.editor, params={"tenant": "acme", "integration_type": TYPE}
        )
        events = [await stream.read_event() for _ in range(4)]
    assert [(one.event, one.data["version"]) for one in events] == [
        ("saved", 2), ("saved", 3), ("saved", 4), ("retired", 5),
    ]  # fmt: skip
    assert all(one.data.keys() == {"tenant", "integration_type", "version", "position"} for one in events)
    assert all(one.data["position"] == one.id for one in events)
    listed = (await client.app.request(
        "GET", "/config/versions", token=client.editor, params={"tenant": "acme", "integration_type": TYPE}
    )).json()["versions"]  # fmt: skip
    assert [one["position"] for one in listed][:4] == [one.id for one in reversed(events)]


async def test_a_watcher_gets_only_changes_in_its_scope_and_grants(client: WatchClient) -> None:
    async with (
        client.stream(integration_type="fl*") as stream,
        client.stream(client.editor, tenant="g*") as editor_stream,
    ):
        await stream.read_event()
        await editor_stream.read_event()
        await client.save(1, tenant="globex")
        await client.save(1, type_=OTHER)
        await client.save(1)
        assert (await stream.read_event()).data | {"position": ""} == {
            "tenant": "acme", "integration_type": TYPE, "version": 1, "position": "",
        }  # fmt: skip
        assert (await editor_stream.read_event()).data["tenant"] == "globex"
    for scope in ({"tenant": "globex"}, {"tenant": "g*"}):
        async with client.stream(**scope) as foreign:
            assert (foreign.status, (await foreign.read_problem())["code"]) == (404, "not-found")


async def test_a_resumed_stream_continues_after_the_last_event(client: WatchClient) -> None:
    async with client.stream() as stream:
        await stream.read_event()
        await client.save(1)
        await stream.read_event()
        last_id_seen = stream.last_id
    for n in range(2, 400):
        await client.save(n)
    received: list[int] = []
    while len(received) < 398:
        async with client.stream(last_id=last_id_seen, after="0") as resumed:
            await resumed.read_event()
            received += [(await resumed.read_event()).data["version"] for _ in range(min(57, 398 - len(received)))]
            last_id_seen = resumed.last_id
    assert received == list(range(2, 400))


async def test_a_stream_from_position_0_gets_all_changes(client: WatchClient) -> None:
    for n in range(5):
        await client.save(n, tenant=f"acme{n}")
    async with client.stream(client.editor, after="0") as stream:
        await stream.read_event()
        assert [(await stream.read_event()).data["tenant"] for _ in range(5)] == [f"acme{n}" for n in range(5)]


async def test_a_changed_integration_type_is_sent_to_watchers_with_a_grant_on_it(client: WatchClient) -> None:
    admin = await client.app.create_token("root", *ADMIN)
    async with client.stream() as stream:
        await stream.read_event()
        await client.app.request("PUT", f"/integration-types/{TYPE}", token=admin, json={"schema": {}})
        event = await stream.read_event()
    assert (event.event, event.data["tenant"], event.data["integration_type"]) == ("type-changed", None, TYPE)


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"after": "hello"}, 400, "invalid-cursor"),
        ({"after": ""}, 400, "invalid-cursor"),
        ({"after": f"{'0' * 16}.9999999999999999999"}, 410, "position-gone"),
        ({"after": f"{'0' * 16}.1"}, 410, "position-gone"),
        ({"tenant": "a b"}, 422, "invalid-name"),
        ({"wait": "1.5"}, 400, "malformed-parameter"),
        ({"wait": ""}, 400, "malformed-parameter"),
        ({"wait": "-1"}, 400, "malformed-parameter"),
        ({"more": "1"}, 400, "unknown-parameter"),
    ],
)
async def test_an_invalid_parameter_is_rejected(client: WatchClient, params: Any, status: int, code: str) -> None:
    reply = await client.poll(**params)
    assert (reply.status_code, reply.json()["code"]) == (status, code)


async def test_a_position_after_the_end_of_the_log_is_gone(client: WatchClient) -> None:
    position = (await client.poll(wait="0")).json()["position"]
    epoch, *numbers = position.split(".")
    ahead = ".".join([epoch, *(str(int(part) + 10**9) for part in numbers[:-1]), str(10**12)])
    assert (await client.poll(wait="0", after=ahead)).json()["code"] == "position-gone"


async def require_end_within_a_second(stream: Stream, action: Any) -> str:
    began = time.monotonic()
    await action
    block = await stream.read_event()
    assert time.monotonic() - began < 1.0
    assert block.event == "refused"
    with pytest.raises(ConnectionError):
        await stream.read_event()
    return str(block.data["code"])


async def test_a_stream_ends_within_a_second_after_its_token_or_grants(client: WatchClient) -> None:
    admin = await client.app.create_token("root", *ADMIN)
    async with client.stream() as stream:
        await stream.read_event()
        action = client.app.request("POST", "/logout", token=client.viewer)
        assert await require_end_within_a_second(stream, action) == "invalid-token"
    other = await client.app.create_token("vi")
    async with client.stream(other) as stream:
        await stream.read_event()
        action = client.app.request("PATCH", "/users/vi", token=admin, json={"grants": []})
        assert await require_end_within_a_second(stream, action) == "not-found"


async def test_a_running_stream_follows_a_narrower_grant(client: WatchClient) -> None:
    admin = await client.app.create_token("root", *ADMIN)
    async with client.stream() as stream:
        await stream.read_event()
        grants = [{"role": "viewer", "tenant": "acme", "integration_type": OTHER}]
        await client.app.request("PATCH", "/users/vi", token=admin, json={"grants": grants})
        (watcher,) = client.app.process.changes.hub._watchers
        key = ConfigKey("acme", TYPE)
        await wait_until_async(lambda: watcher.token.principal.find_role(key) is None, "the hub has the new grants")
        await client.save(1)
        await client.save(1, type_=OTHER)
        assert (await stream.read_event()).data["integration_type"] == OTHER


async def test_a_stream_ends_although_its_token_was_changed_while_it_was_looked_up(
    client: WatchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a token is not cached, so the caches cannot tell the hub that it was revoked."""
    tokens, stamps = client.app.process.stores.tokens, client.app.process.stores.stamp_file.stamps
    read = tokens.read

    async def read_while_another_process_changes(credential: Credential) -> Any:
        found = await read(credential)
        await stamps.compare_and_stamp([SlotChange(find_token_slot(credential))])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(tokens, "read", read_while_another_process_changes)
        stream = client.stream()
        async with stream:
            await stream.read_event()
            patch.undo()
            action = client.app.request("POST", "/logout", token=client.viewer)
            assert await require_end_within_a_second(stream, action) == "invalid-token"


async def test_a_draining_process_sends_the_position_to_resume_from(client: WatchClient) -> None:
    async with client.stream() as stream:
        await stream.read_event()
        await client.save(1)
        event = await stream.read_event()
        await client.save(1, tenant="globex")
        await asyncio.sleep(0.5)
        client.app.process.draining.begin()
        bye = await stream.read_event()
        assert (bye.event, bye.data) == ("bye", {"position": bye.id})
        assert bye.id != event.id, "the position is after changes that the watcher cannot see"
        with pytest.raises(ConnectionError):
            await stream.read_event()


async def begin_epoch(app: RunningApp) -> None:
    """Begin another epoch. The database has it too, or else the change feed would soon return to the one before."""
    epoch = Epoch("f00df00df00df00d", 2)
    await app.process.stores.engine.execute("UPDATE store SET epoch = $1, epoch_number = $2", epoch.id, epoch.number)
    app.process.stores.epoch.adopt(epoch)


async def test_a_new_epoch_ends_streams_at_positions_that_are_gone(client: WatchClient) -> None:
    async with client.stream(client.editor) as stream:
        await stream.read_event()
        await client.save(1)
        event = await stream.read_event()
        await begin_epoch(client.app)
        bye = await stream.read_event()
        assert (bye.event, bye.id) == ("bye", event.id)
    for resumed in (event.id, bye.id):
        async with client.stream(client.editor, last_id=resumed) as stream:
            assert (stream.status, (await stream.read_problem())["code"]) == (410, "position-gone")


async def test_a_new_epoch_ends_a_long_poll_with_410(client: WatchClient) -> None:
    hub = client.app.process.changes.hub
    polling = asyncio.create_task(client.poll(wait="60"))
    await wait_until_async(lambda: len(hub), "the poll has begun")
    await begin_epoch(client.app)
    reply = await polling
    assert (reply.status_code, reply.json()["code"]) == (410, "position-gone")


async def test_events_that_are_read_while_an_epoch_ends_are_not_sent(
    client: WatchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the client would resume at a position of the next epoch and miss what is gone."""
    hub = client.app.process.changes.hub
    read = hub.read_next

    async def read_while_the_epoch_ends(watcher: Watcher) -> Any:
        found = await read(watcher)
        if found.events:
            await begin_epoch(client.app)
        return found

    monkeypatch.setattr(hub, "read_next", read_while_the_epoch_ends)
    async with client.stream(client.editor) as stream:
        ready = await stream.read_event()
        assert await append(client.app.process.stores, build_version(1))
        client.app.process.changes.hub.notify()
        bye = await stream.read_event()
        assert (bye.event, bye.id) == ("bye", ready.id)


async def test_draining_does_not_move_a_watcher_past_an_unsent_event(
    client: WatchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confide.changes.watch.WAKE_BATCH_SIZE", 1)
    hub, authenticator = client.app.process.changes.hub, client.app.process.identity.authenticator
    assert await authenticator.authenticate(authenticator.parse(client.viewer))
    started = [await hub.join(client.viewer, Scope("*", "*"), after=None, epoch=hub._epoch.value) for _ in range(20)]
    for watcher in started:
        watcher.is_caught_up = True
        watcher.wake = lambda **_: hub.drain() if not any(one.ended_by for one in started) else None
    saved = await client.app.save(client.editor, {"n": 1})
    assert saved.status_code == 200
    for _ in range(100):
        if all(watcher.ended_by for watcher in started):
            break
        await asyncio.sleep(0.02)
    (version,) = await client.app.process.stores.configs.list_versions(ConfigKey("acme", TYPE), before=None, limit=1)
    assert all(watcher.position < version.position for watcher in started)


async def test_a_position_with_a_number_above_64_bits_is_rejected(client: WatchClient) -> None:
    epoch = (await client.poll(wait="0")).json()["position"].split(".")[0]
    for text in (f"{epoch}.9999999999999999999", f"{epoch}.3.9999999999999999999"):
        problem = (await client.poll(wait="0", after=text)).json()
        assert (problem["code"], problem["detail"][:17]) == ("invalid-cursor", "Invalid position.")


async def test_a_heartbeat_has_the_current_position(client: WatchClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("confide.changes.watchers.HEARTBEAT_SECONDS", 0.2)
    async with client.stream() as stream:
        blocks = stream.read_blocks()
        started = (await anext(blocks)).id
        await client.save(1, tenant="globex")
        ids = [(await anext(blocks)).id for _ in range(5)]
    assert ids[-1] not in (None, started)


async def test_long_polling_waits_for_a_visible_change(client: WatchClient) -> None:
    started = (await client.poll(wait="0")).json()
    assert started["events"] == []
    poll = asyncio.create_task(client.poll(wait="30", after=started["position"]))
    await wait_until_async(lambda: len(client.app.process.changes.hub) == 1, "the poll waits")
    await client.save(1, tenant="globex")
    await client.save(1)
    page = (await asyncio.wait_for(poll, 5)).json()
    (event,) = page["events"]
    assert (event["event"], event["tenant"], event["version"]) == ("saved", "acme", 1)
    began = time.monotonic()
    resumed = (await client.poll(wait="1", after=page["position"])).json()
    assert resumed["events"] == []
    assert time.monotonic() - began > 0.9
    await client.save(2)
    assert [one["version"] for one in (await client.poll(wait="9", after=resumed["position"])).json()["events"]] == [2]


@pytest.mark.parametrize("wait", ["60", "999999999"])
async def test_a_wait_of_a_proxy_timeout_or_more_ends_earlier(
    client: WatchClient, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    assert routes.MAX_WAIT_SECONDS == 50
    monkeypatch.setattr(routes, "MAX_WAIT_SECONDS", 1)
    reply = await asyncio.wait_for(client.poll(wait=wait), 30)
    assert (reply.status_code, reply.json()["events"]) == (200, [])


async def test_long_polling_fails_when_the_token_ends(client: WatchClient) -> None:
    poll = asyncio.create_task(client.poll(wait="30"))
    await wait_until_async(lambda: len(client.app.process.changes.hub) == 1, "the poll waits")
    await client.app.request("POST", "/logout", token=client.viewer)
    assert (await asyncio.wait_for(poll, 2)).status_code == 401


async def test_a_disconnected_watcher_is_removed(client: WatchClient) -> None:
    async with client.stream() as stream:
        await stream.read_event()
        assert len(client.app.process.changes.hub) == 1
    for _ in range(100):
        await asyncio.sleep(0.02)
        if not len(client.app.process.changes.hub):
            break
    assert len(client.app.process.changes.hub) == 0
