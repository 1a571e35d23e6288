"""During a rolling upgrade, processes of the release before and of this one share a database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from confide.names import ConfigKey
from support.app import TYPE
from support.earlier_release import check_out_earlier_source
from support.processes import Service
from support.streams import Stream
from support.waiting import wait_until

KEY = ConfigKey("acme", TYPE)
PARAMS = {"tenant": KEY.tenant, "integration_type": KEY.integration_type}


@dataclass
class Pair:
    """A service of the release before and one of this release, on one database and one data folder."""

    old: Service
    new: Service
    admin: str

    def directions(self) -> list[tuple[Service, Service]]:
        return [(self.old, self.new), (self.new, self.old)] * 2


@pytest.fixture
def pair(tmp_path: Path, database: str | None) -> Iterator[Pair]:
    source = check_out_earlier_source(tmp_path / "earlier")
    old = Service(tmp_path, database=database, env={"PYTHONPATH": str(source)})
    new = Service(tmp_path, database=database)
    try:
        old.start()
        admin = old.add_admin()
        save(old, admin, 0)
        new.start()
        yield Pair(old, new, admin)
    except BaseException:
        print(old.log.read_text()[-6_000:])
        raise
    finally:
        old.end()
        new.end()


def request(service: Service, token: str, method: str, path: str, **more: Any) -> Any:
    with service.client(token) as client:
        reply = client.request(method, path, **more)
    assert reply.status_code < 300, reply.text
    return reply


def save(service: Service, token: str, number: int, **headers: str) -> Any:
    document = {**PARAMS, "configuration": {"number": number}}
    return request(service, token, "POST", "/config", json=document, headers=headers)


def read_status(service: Service, token: str) -> int:
    with service.client(token) as client:
        return client.get("/config", params=PARAMS).status_code


def wait_for_number(service: Service, token: str, number: int) -> Any:
    """Return the response of the service once it has the configuration."""
    wait_until(
        lambda: request(service, token, "GET", "/config", params=PARAMS).json()["configuration"]["number"] == number,
        f"the service reads the save {number}",
    )
    return request(service, token, "GET", "/config", params=PARAMS)


def test_each_release_reads_what_the_other_saved_and_accepts_its_entity_tags(pair: Pair) -> None:
    for number, (writer, reader) in enumerate(pair.directions(), start=1):
        save(writer, pair.admin, number)
        tag = wait_for_number(reader, pair.admin, number).headers["ETag"]
        save(writer, pair.admin, number * 100, **{"If-Match": tag})
    assert request(pair.new, pair.admin, "GET", "/audit/verify").json()["ok"]
    for service in (pair.old, pair.new):
        assert request(service, pair.admin, "GET", "/health/ready").json()["status"] != "unavailable"


def test_each_release_revokes_the_tokens_of_the_other(pair: Pair) -> None:
    request(pair.old, pair.admin, "POST", "/user", json={"login": "robot", "grants": [
        {"role": "editor", "tenant": "acme", "integration_type": "*"}]})  # fmt: skip
    for creator, other in pair.directions():
        made = request(creator, pair.admin, "POST", "/tokens", json={"login": "robot", "label": "pair"}).json()
        wait_until(lambda: read_status(other, made["token"]) == 200, "the other release accepts the token")  # noqa: B023
        request(creator, pair.admin, "DELETE", f"/tokens/{made['id']}")
        wait_until(lambda: read_status(other, made["token"]) == 401, "the other release rejects the token")  # noqa: B023


async def test_a_watcher_resumes_at_the_other_release(pair: Pair) -> None:
    position: str | None = None
    for number, (watched, writer) in enumerate(pair.directions(), start=1):
        # Both saves arrive in order: the first happens while the client is not connected.
        missed = save(writer, pair.admin, number).json()["version"] if position else None
        async with Stream(watched.port, pair.admin, PARAMS, last_id=position) as stream:
            assert stream.status == 200
            saved = save(writer, pair.admin, number * 100).json()["version"]
            for version in (missed, saved) if missed else (saved,):
                while (event := await stream.read_event()).event != "saved":
                    pass
                assert event.data["version"] == version
                position = event.id


def test_the_earlier_release_stops_after_the_upgrade_and_does_not_start_again(pair: Pair) -> None:
    assert pair.old.stop() == 0
    save(pair.new, pair.admin, 1)
    pair.old.launch()
    assert pair.old.process is not None
    assert pair.old.process.wait(120) == 6
    assert "Use a newer Confide." in pair.old.log.read_text()
    assert read_status(pair.new, pair.admin) == 200
