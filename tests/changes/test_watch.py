"""`/watch` over a real connection: each change once, in order, from where one left off, and no longer than one may."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from confide.identity.model import Scope
from confide.names import Key
from support.app import ADMIN, TYPE, RunningApp
from support.served import served
from support.streams import Stream

OTHER = "crm"


@dataclass
class Desk:
    """A served app with an editor of everything and a viewer of one tenant."""

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

    async def ask(self, *, token: str | None = None, **params: str) -> Any:
        return await self.app.ask("GET", "/watch", token=token or self.viewer, params=params)


@pytest_asyncio.fixture
async def desk(app: RunningApp) -> AsyncIterator[Desk]:
    editor = await app.token("ed", ("editor", "*", "*"))
    viewer = await app.token("vi", ("viewer", "acme", "*"))
    async with served(app) as port:
        yield Desk(app, port, editor, viewer)


async def test_each_change_is_told_once_in_order_and_without_its_body(desk: Desk) -> None:
    await desk.save(0)
    async with desk.stream() as stream:
        assert (stream.status, (await stream.next()).event) == (200, "ready")
        for n in range(1, 4):
            await desk.save(n)
        await desk.app.ask("DELETE", "/config", token=desk.editor, params={"tenant": "acme", "integration_type": TYPE})
        told = [await stream.next() for _ in range(4)]
    assert [(one.event, one.data["version"]) for one in told] == [
        ("saved", 2), ("saved", 3), ("saved", 4), ("retired", 5),
    ]  # fmt: skip
    assert all(one.data.keys() == {"tenant", "integration_type", "version", "position"} for one in told)
    assert all(one.data["position"] == one.id for one in told)
    listed = (await desk.app.ask(
        "GET", "/config/versions", token=desk.editor, params={"tenant": "acme", "integration_type": TYPE}
    )).json()["versions"]  # fmt: skip
    assert [one["position"] for one in listed][:4] == [one.id for one in reversed(told)]


async def test_only_what_is_wanted_and_may_be_known_is_told(desk: Desk) -> None:
    async with desk.stream(integration_type="fl*") as stream, desk.stream(desk.editor, tenant="g*") as all_of_g:
        await stream.next()
        await all_of_g.next()
        await desk.save(1, tenant="globex")
        await desk.save(1, type_=OTHER)
        await desk.save(1)
        assert (await stream.next()).data | {"position": ""} == {
            "tenant": "acme", "integration_type": TYPE, "version": 1, "position": "",
        }  # fmt: skip
        assert (await all_of_g.next()).data["tenant"] == "globex"
    for scope in ({"tenant": "globex"}, {"tenant": "g*"}):
        async with desk.stream(**scope) as foreign:
            assert (foreign.status, (await foreign.refusal())["code"]) == (404, "not-found")


async def test_who_comes_again_goes_on_where_they_were(desk: Desk) -> None:
    async with desk.stream() as stream:
        await stream.next()
        await desk.save(1)
        await stream.next()
        known = stream.last_id
    for n in range(2, 400):
        await desk.save(n)
    heard: list[int] = []
    while len(heard) < 398:
        async with desk.stream(last_id=known, after="0") as again:
            await again.next()
            heard += [(await again.next()).data["version"] for _ in range(min(57, 398 - len(heard)))]
            known = again.last_id
    assert heard == list(range(2, 400))


async def test_from_the_beginning_everything_is_told(desk: Desk) -> None:
    for n in range(5):
        await desk.save(n, tenant=f"acme{n}")
    async with desk.stream(desk.editor, after="0") as stream:
        await stream.next()
        assert [(await stream.next()).data["tenant"] for _ in range(5)] == [f"acme{n}" for n in range(5)]


async def test_a_changed_type_is_told_to_those_with_a_grant_on_it(desk: Desk) -> None:
    admin = await desk.app.token("root", *ADMIN)
    async with desk.stream() as stream:
        await stream.next()
        await desk.app.ask("PUT", f"/integration-types/{TYPE}", token=admin, json={"schema": {}})
        told = await stream.next()
    assert (told.event, told.data["tenant"], told.data["integration_type"]) == ("type-changed", None, TYPE)


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"after": "hello"}, 400, "invalid-cursor"),
        ({"after": ""}, 400, "invalid-cursor"),
        ({"after": f"{'0' * 16}.9999999999999999999"}, 410, "position-gone"),
        ({"after": f"{'0' * 16}.1"}, 410, "position-gone"),
        ({"tenant": "a b"}, 422, "invalid-name"),
        ({"wait": "61"}, 400, "malformed-parameter"),
        ({"wait": "-1"}, 400, "malformed-parameter"),
        ({"more": "1"}, 400, "unknown-parameter"),
    ],
)
async def test_what_cannot_be_is_refused(desk: Desk, params: Any, status: int, code: str) -> None:
    reply = await desk.ask(**params)
    assert (reply.status_code, reply.json()["code"]) == (status, code)


async def test_a_position_that_the_log_never_had_is_gone(desk: Desk) -> None:
    position = (await desk.ask(wait="0")).json()["position"]
    epoch, *numbers = position.split(".")
    ahead = ".".join([epoch, *(str(int(part) + 10**9) for part in numbers[:-1]), str(10**12)])
    assert (await desk.ask(wait="0", after=ahead)).json()["code"] == "position-gone"


async def ended_within_a_second(stream: Stream, act: Any) -> str:
    began = time.monotonic()
    await act
    block = await stream.next()
    assert time.monotonic() - began < 1.0
    assert block.event == "refused"
    with pytest.raises(ConnectionError):
        await stream.next()
    return str(block.data["code"])


async def test_a_stream_ends_within_a_second_when_the_token_or_its_grants_do(desk: Desk) -> None:
    admin = await desk.app.token("root", *ADMIN)
    async with desk.stream() as stream:
        await stream.next()
        act = desk.app.ask("POST", "/logout", token=desk.viewer)
        assert await ended_within_a_second(stream, act) == "invalid-token"
    other = await desk.app.token("vi")
    async with desk.stream(other) as stream:
        await stream.next()
        act = desk.app.ask("PATCH", "/users/vi", token=admin, json={"grants": []})
        assert await ended_within_a_second(stream, act) == "not-found"


async def test_a_narrower_grant_narrows_the_stream_that_goes_on(desk: Desk) -> None:
    admin = await desk.app.token("root", *ADMIN)
    async with desk.stream() as stream:
        await stream.next()
        grants = [{"role": "viewer", "tenant": "acme", "integration_type": OTHER}]
        await desk.app.ask("PATCH", "/users/vi", token=admin, json={"grants": grants})
        await asyncio.sleep(1.0)
        await desk.save(1)
        await desk.save(1, type_=OTHER)
        assert (await stream.next()).data["integration_type"] == OTHER


async def test_a_draining_process_says_where_to_go_on(desk: Desk) -> None:
    async with desk.stream() as stream:
        await stream.next()
        await desk.save(1)
        told = await stream.next()
        await desk.save(1, tenant="globex")
        await asyncio.sleep(0.5)
        desk.app.process.draining.begin()
        bye = await stream.next()
        assert (bye.event, bye.data) == ("bye", {"position": bye.id})
        assert bye.id != told.id, "what is not for this watcher need not be looked at again"
        with pytest.raises(ConnectionError):
            await stream.next()


async def test_who_was_not_woken_yet_when_a_process_drains_is_not_sent_past_an_event(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confide.changes.watch.WAKE_BATCH_SIZE", 1)
    watching, authenticator = desk.app.process.changes.hub, desk.app.process.identity.authenticator
    assert await authenticator.authenticate(authenticator.parse(desk.viewer))
    begun = [await watching.join(desk.viewer, Scope("*", "*"), after=None) for _ in range(20)]
    for watcher in begun:
        watcher.is_caught_up = True
        watcher.wake = lambda **_: watching.drain() if not any(one.ended_by for one in begun) else None
    saved = await desk.app.save(desk.editor, {"n": 1})
    assert saved.status_code == 200
    for _ in range(100):
        if all(watcher.ended_by for watcher in begun):
            break
        await asyncio.sleep(0.02)
    (line,) = await desk.app.process.stores.configs.list_versions(Key("acme", TYPE), before=None, limit=1)
    assert all(watcher.position < line.position for watcher in begun)


async def test_a_number_that_no_store_can_hold_is_no_position(desk: Desk) -> None:
    epoch = (await desk.ask(wait="0")).json()["position"].split(".")[0]
    for text in (f"{epoch}.9999999999999999999", f"{epoch}.3.9999999999999999999"):
        assert (await desk.ask(wait="0", after=text)).json()["code"] == "invalid-cursor"


async def test_a_heartbeat_shows_how_far_it_has_come(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("confide.changes.watchers.HEARTBEAT_SECONDS", 0.2)
    async with desk.stream() as stream:
        blocks = stream.blocks()
        begun = (await anext(blocks)).id
        await desk.save(1, tenant="globex")
        ids = [(await anext(blocks)).id for _ in range(5)]
    assert ids[-1] not in (None, begun)


async def test_without_streams_one_asks_and_waits(desk: Desk) -> None:
    begun = (await desk.ask(wait="0")).json()
    assert begun["events"] == []
    asked = asyncio.create_task(desk.ask(wait="30", after=begun["position"]))
    await asyncio.sleep(0.3)
    await desk.save(1, tenant="globex")
    await desk.save(1)
    answer = (await asyncio.wait_for(asked, 5)).json()
    (event,) = answer["events"]
    assert (event["event"], event["tenant"], event["version"]) == ("saved", "acme", 1)
    began = time.monotonic()
    again = (await desk.ask(wait="1", after=answer["position"])).json()
    assert again["events"] == []
    assert time.monotonic() - began > 0.9
    await desk.save(2)
    assert [one["version"] for one in (await desk.ask(wait="9", after=again["position"])).json()["events"]] == [2]


async def test_who_waits_with_a_token_that_ends_is_refused(desk: Desk) -> None:
    asked = asyncio.create_task(desk.ask(wait="30"))
    await asyncio.sleep(0.3)
    await desk.app.ask("POST", "/logout", token=desk.viewer)
    assert (await asyncio.wait_for(asked, 2)).status_code == 401


async def test_nobody_watches_once_everybody_has_left(desk: Desk) -> None:
    async with desk.stream() as stream:
        await stream.next()
        assert len(desk.app.process.changes.hub) == 1
    for _ in range(100):
        await asyncio.sleep(0.02)
        if not len(desk.app.process.changes.hub):
            break
    assert len(desk.app.process.changes.hub) == 0
