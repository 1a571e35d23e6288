"""The commands for types, the watch, the audit and moving configs, as somebody types them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from confide.integration_types.masking import MASK
from support.canaries import canary
from support.processes import Service, confide, environment, running

SECRET = canary("moved")
SCHEMA = {"required": ["host"], "properties": {"host": {"type": "string"}, "password": {}}}


class Desk:
    """A running service and somebody logged in at it."""

    def __init__(self, service: Service, token: str, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.env = {"CONFIDE_URL": service.url, "CONFIDE_TOKEN": token}

    def run(self, *args: str, stdin: str = "", code: int = 0) -> str:
        done = confide(*args, cwd=self.folder, stdin=stdin, env=self.env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def set(self, tenant: str, configuration: Any) -> None:
        self.run("config", "set", tenant, "crm", stdin=json.dumps(configuration))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with running(tmp_path / "service") as service:
        (tmp_path / "desk").mkdir()
        yield Desk(service, service.admin(), tmp_path / "desk")


def test_a_type_is_checked_before_it_is_put(desk: Desk) -> None:
    desk.set("acme", {"host": "h"})
    desk.set("globex", {"port": 1})
    (desk.folder / "crm.json").write_text(json.dumps(SCHEMA))
    told = desk.run("type", "check", "crm", "crm.json", code=10)
    assert "globex : crm, version 1" in told
    assert "/host  required" in told
    assert "2 configs checked, 1 violate the schema." in told
    assert "no integration type 'crm' with a schema" in desk.run("type", "check", "crm", code=1)
    desk.run("type", "put", "crm", "crm.json")
    warned = desk.run("config", "set", "globex", "crm", stdin='{"port": 2}')
    assert "warning: /configuration/host  required: This member is required." in warned
    assert "is updated, version 2." in desk.run("type", "put", "crm", "crm.json", "--mode", "enforce", "--keep", "7")
    assert json.loads(desk.run("type", "check", "crm", "--json", code=10))["broken"] == 1
    assert json.loads(desk.run("type", "show", "crm")) == SCHEMA
    assert "enforce" in desk.run("type", "list")
    assert "globex" in desk.run("config", "list", "--broken")
    (desk.folder / "bad.json").write_text('{"type": "nothing"}')
    assert "not a valid JSON Schema" in desk.run("type", "put", "crm", "bad.json", code=1)
    (desk.folder / "bad.json").write_text("{")
    assert "is not valid JSON at line 1, column 2" in desk.run("type", "put", "crm", "bad.json", code=1)


def test_configs_are_moved_from_one_service_to_another(desk: Desk, tmp_path: Path) -> None:
    for n in range(5):
        desk.set(f"t{n}", {"n": n, "password": SECRET})
    masked = desk.folder / "masked.jsonl"
    assert "5 configs exported, secrets masked." in desk.run("export", str(masked))
    assert SECRET not in masked.read_text()
    assert masked.read_text().count(MASK) == 5
    told = desk.run("import", str(masked), code=1)
    assert "5 refused" in told
    assert "line 1: " in told
    opened = desk.folder / "planted" / "opened.jsonl"  # a file with secrets in it, as asked for
    opened.parent.mkdir()
    desk.run("export", str(opened), "t*", "--secrets", "opened")
    assert opened.read_text().count(SECRET) == 5
    assert opened.stat().st_mode & 0o077 == 0
    assert "exists" in desk.run("export", str(opened), code=1)
    assert "5 unchanged." in desk.run("import", str(opened))
    with running(tmp_path / "other") as other:
        there = Desk(other, other.admin(), desk.folder)
        assert "5 created (dry run: nothing was stored)." in there.run("import", str(opened), "--dry-run")
        assert there.run("export", "-").strip() == "0 configs exported, secrets masked."
        more = opened.read_text() + '{"tenant": "t0"}\nnonsense\n' + opened.read_text().splitlines()[0] + "\n"
        told = there.run("import", stdin=more, code=1)
        assert "5 created, 2 refused, 1 unchanged." in told
        assert "line 6: it must be an object" in told
        assert "line 7: it is not valid JSON at line 7, column 1" in told
        odd = b'{"tenant": "t", "integration_type": "crm", "configuration": {"a": "\\ud800"}}\n\xff\n' + b"[" * 9_000
        (desk.folder / "odd.jsonl").write_bytes(odd)
        assert "3 refused." in there.run("import", "odd.jsonl", code=1)
        # What would be another number once it was read, or is said twice, is judged by the service and saved by nobody.
        address = '{"tenant": "x%d", "integration_type" : "crm", "configuration": '
        places = (
            '{"a": 1, "a": 2}',
            '{"a": 12345678901234567890.5}',
            '{"a": NaN}',
            '{}, "tenant": "y"',
            '{"a": 1}, "b": [2]',
        )
        lines = [f"{address % number}{place}}}" for number, place in enumerate(places)]
        told = there.run("import", stdin="\n".join(lines), code=1)
        assert "1 created, 4 refused." in told
        assert "is not valid JSON" in there.run("config", "set", "x9", "crm", stdin='{}, "note": "not mine"', code=1)
        exported = there.run("export", "-").splitlines()[:-1]
        assert [json.loads(line)["tenant"] for line in exported] == ["t0", "t1", "t2", "t3", "t4", "x4"]
        assert json.loads(there.run("config", "get", "t4", "crm")) == {"n": 4, "password": SECRET}


def test_a_watch_prints_each_change_and_goes_on_after_a_restart(desk: Desk) -> None:
    command = [sys.executable, "-m", "confide", "config", "watch", "acme", "--json", "--after", "0"]
    with (desk.folder / "watched").open("wb") as out:
        watching = subprocess.Popen(
            command, cwd=desk.folder, env=environment(**desk.env), stdout=out, stderr=subprocess.DEVNULL
        )
        try:
            desk.set("acme", {"n": 1})
            heard(desk, 1)
            desk.service.stop()
            desk.service.start()
            desk.set("acme", {"n": 2})
            desk.set("globex", {"n": 2})
            desk.set("acme", {"n": 3})
            lines = [json.loads(line) for line in heard(desk, 3)]
        finally:
            watching.terminate()
            watching.wait(10)
    assert [(one["event"], one["tenant"], one["version"]) for one in lines] == [("saved", "acme", n) for n in (1, 2, 3)]


def heard(desk: Desk, count: int) -> list[str]:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        lines = (desk.folder / "watched").read_text().splitlines()
        if len(lines) >= count:
            return lines
        time.sleep(0.05)
    raise AssertionError((desk.folder / "watched").read_text())


def test_an_export_of_the_audit_is_proven_offline_and_a_change_in_it_is_named(desk: Desk) -> None:
    for n in range(10):
        desk.set("acme", {"n": n})
    time.sleep(1.5)
    told = desk.run("audit", "export", "audit.jsonl")
    key = told.split("public key ")[1].split(":")[0]
    assert "are in order and unaltered; the first " in desk.run("audit", "verify", "audit.jsonl", "--key", key)
    assert "save" in desk.run("audit", "list", "--tenant", "acme", "--limit", "3")
    path = desk.folder / "audit.jsonl"
    lines = path.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if '"save"' in line)
    lines[number] = lines[number].replace('"save"', '"read"')
    path.write_text("\n".join(lines) + "\n")
    assert f"BAD: entry {number + 1}:" in desk.run("audit", "verify", "audit.jsonl", code=10)
    path.write_text("nonsense\n")
    assert "BAD: entry 1: its line is not an entry" in desk.run("audit", "verify", "audit.jsonl", code=10)
