"""Reads with the parameters `secrets` and `pointer`, as docs/reference/api.md says."""

from __future__ import annotations

from typing import Any

import pytest

from confide.integration_types.masking import MASK
from support.app import TYPE, RunningApp
from support.canaries import make_canary

ADDRESS = {"tenant": "acme", "integration_type": TYPE}
SECRET = make_canary("member")
STORED = {"host": "crm.example", "password": SECRET, "endpoints": [{"a/b": 1, "token": SECRET}], "empty": ""}


class Clients:
    """Clients of a viewer and a reader of one config."""

    def __init__(self, app: RunningApp, viewer: str, reader: str) -> None:
        self.app, self.viewer, self.reader = app, viewer, reader

    async def read(self, token: str, *, headers: dict[str, str] | None = None, **params: str) -> Any:
        return await self.app.request(
            "GET", "/config", token=token, params={**ADDRESS, **params}, headers=headers or {}
        )

    async def list_accesses(self) -> list[tuple[Any, ...]]:
        """Return outcome, version and subject of the audited accesses to secrets."""
        rows = [row async for table, row in self.app.process.stores.database.dump() if table == "audit"]
        return [(row[3], row[10], row[11]) for row in rows if row[2] == "reveal"]


@pytest.fixture
async def clients(app: RunningApp) -> Clients:
    editor = await app.create_token("ed", ("editor", "acme", "*"))
    assert (await app.save(editor, STORED)).status_code == 200
    return Clients(
        app,
        await app.create_token("vi", ("viewer", "acme", "*")),
        await app.create_token("re", ("reader", "acme", "*")),
    )


async def test_a_masked_read_hides_secrets_from_every_role_and_is_not_audited(clients: Clients) -> None:
    for token in (clients.viewer, clients.reader):
        reply = await clients.read(token, secrets="masked")
        assert reply.status_code == 200
        assert reply.json()["configuration"]["password"] == MASK
        assert SECRET not in reply.text
    assert await clients.list_accesses() == []


async def test_a_reader_that_confirms_a_masked_tag_does_not_confirm_the_readable_one(clients: Clients) -> None:
    masked = await clients.read(clients.reader, secrets="masked")
    readable = await clients.read(clients.reader)
    assert masked.headers["etag"] != readable.headers["etag"]
    headers = {"If-None-Match": masked.headers["etag"]}
    assert (await clients.read(clients.reader, secrets="masked", headers=headers)).status_code == 304
    assert (await clients.read(clients.reader, headers=headers)).status_code == 200


async def test_a_read_without_the_parameter_stays_as_it_was(clients: Clients) -> None:
    assert (await clients.read(clients.reader)).json()["configuration"] == STORED
    assert (await clients.read(clients.viewer)).json()["configuration"]["password"] == MASK
    assert await clients.list_accesses() == []


async def test_an_opened_read_is_audited_once_and_forbidden_to_viewers(clients: Clients) -> None:
    assert (await clients.read(clients.reader, secrets="opened")).json()["configuration"] == STORED
    assert await clients.list_accesses() == [("config", 1, None)]
    reply = await clients.read(clients.viewer, secrets="opened")
    assert (reply.status_code, reply.json()["code"]) == (403, "not-allowed")
    assert await clients.list_accesses() == [("config", 1, None)]


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/password", SECRET),
        ("/endpoints/0/token", SECRET),
        ("/endpoints/0/a~1b", 1),
        ("/endpoints/0", {"a/b": 1, "token": SECRET}),
        ("/empty", ""),
        ("", STORED),
    ],
    ids=["string", "inside-list", "escape", "object", "empty", "whole"],
)
async def test_a_pointer_returns_one_member_with_one_audit_entry(clients: Clients, pointer: str, value: Any) -> None:
    reply = await clients.read(clients.reader, secrets="opened", pointer=pointer)
    assert reply.status_code == 200
    assert reply.json() == {**ADDRESS, "version": 1, "pointer": pointer, "value": value}
    assert reply.headers["config-version"] == "1"
    assert await clients.list_accesses() == [("member", 1, pointer)]


@pytest.mark.parametrize("pointer", ["/missing", "/host/0", "/endpoints/1", "/endpoints/00", "/endpoints/-", "/"])
async def test_a_pointer_to_nothing_is_404_and_not_audited(clients: Clients, pointer: str) -> None:
    reply = await clients.read(clients.reader, secrets="opened", pointer=pointer)
    assert (reply.status_code, reply.json()["code"]) == (404, "member-missing")
    assert await clients.list_accesses() == []


async def test_a_viewer_cannot_open_a_member(clients: Clients) -> None:
    for pointer in ("/host", "/password", "/missing"):
        reply = await clients.read(clients.viewer, secrets="opened", pointer=pointer)
        assert (reply.status_code, reply.json()["code"]) == (403, "not-allowed")
    assert await clients.list_accesses() == []


@pytest.mark.parametrize(
    "params",
    [
        {"secrets": "open"},
        {"secrets": ""},
        {"pointer": "/password"},
        {"secrets": "masked", "pointer": "/password"},
        {"secrets": "opened", "pointer": "password"},
        {"secrets": "opened", "pointer": "/a~2"},
    ],
)
async def test_wrong_parameters_are_explained(clients: Clients, params: dict[str, Any]) -> None:
    reply = await clients.read(clients.reader, **params)
    assert (reply.status_code, reply.json()["code"]) == (400, "malformed-parameter")
    assert await clients.list_accesses() == []


async def test_a_member_of_another_version_is_not_opened(clients: Clients) -> None:
    reply = await clients.read(clients.reader, secrets="opened", pointer="/password", headers={"If-Match": '"2"'})
    assert reply.status_code == 412
    assert await clients.list_accesses() == []


async def test_defaults_of_the_type_can_be_left_out_of_an_opened_read(clients: Clients) -> None:
    admin = await clients.app.create_token("root", ("admin", "*", "*"))
    document: dict[str, Any] = {"schema": {"properties": {"timeout": {"default": 30}}}, "mode": "warn"}
    put = await clients.app.request("PUT", f"/integration-types/{TYPE}", token=admin, json=document)
    assert put.status_code == 200, put.text
    reply = await clients.read(clients.reader, secrets="opened", pointer="/timeout")
    assert reply.json()["value"] == 30
    reply = await clients.read(clients.reader, secrets="opened", pointer="/timeout", defaults="off")
    assert reply.json()["code"] == "member-missing"
