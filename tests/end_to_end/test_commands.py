"""Test the commands for types, watches, audit entries, export and import."""

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
from support.canaries import SKIPPED_FOLDER, make_canary
from support.processes import Service, build_environment, run_confide, run_service

SECRET = make_canary("moved")
SCHEMA = {"required": ["host"], "properties": {"host": {"type": "string"}, "password": {}}}


class Terminal:
    """Terminal of one user who is logged in at a service."""

    def __init__(self, service: Service, token: str, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.env = {"CONFIDE_URL": service.url, "CONFIDE_TOKEN": token}

    def run(self, *args: str, stdin: str = "", code: int = 0) -> str:
        done = run_confide(*args, cwd=self.folder, stdin=stdin, env=self.env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def save(self, tenant: str, configuration: Any) -> None:
        self.run("config", "set", tenant, "crm", stdin=json.dumps(configuration))


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with run_service(tmp_path / "service") as service:
        (tmp_path / "files").mkdir()
        yield Terminal(service, service.add_admin(), tmp_path / "files")


def test_a_schema_is_checked_against_configs_and_activated(terminal: Terminal) -> None:
    terminal.save("acme", {"host": "h"})
    terminal.save("globex", {"port": 1})
    (terminal.folder / "crm.json").write_text(json.dumps(SCHEMA))
    output = terminal.run("type", "check", "crm", "crm.json", code=10)
    assert "globex : crm, version 1" in output
    assert "/host  required" in output
    assert "2 configs checked, 1 violate the schema." in output
    assert "no integration type 'crm' with a schema" in terminal.run("type", "check", "crm", code=1)
    terminal.run("type", "put", "crm", "crm.json")
    output = terminal.run("config", "set", "globex", "crm", stdin='{"port": 2}')
    assert "warning: /configuration/host  required: This member is required." in output
    assert "is updated, version 2." in terminal.run(
        "type", "put", "crm", "crm.json", "--mode", "enforce", "--keep", "7"
    )
    assert json.loads(terminal.run("type", "check", "crm", "--json", code=10))["broken"] == 1
    assert json.loads(terminal.run("type", "show", "crm")) == SCHEMA
    assert "enforce" in terminal.run("type", "list")
    assert "globex" in terminal.run("config", "list", "--broken")
    (terminal.folder / "bad.json").write_text('{"type": "nothing"}')
    assert "not a valid JSON Schema" in terminal.run("type", "put", "crm", "bad.json", code=1)
    (terminal.folder / "bad.json").write_text("{")
    assert "is not valid JSON at line 1, column 2" in terminal.run("type", "put", "crm", "bad.json", code=1)


def test_a_check_lists_the_values_that_a_schema_masks_or_shows(terminal: Terminal) -> None:
    draft = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {
            "zone": {"format": "password"},
            "credentials": {"properties": {"id": {}}},
            "method": {"type": "object", "default": "CDC"},
        },
    }
    (terminal.folder / "crm.json").write_text(json.dumps(draft))
    for tenant in ("acme", "globex"):
        terminal.save(tenant, {"zone": SECRET, "credentials": {"id": 1}})
    terminal.save("initech", {"token1": SECRET})
    warning = "warning: /schema/properties/method/default  default: This default violates its own schema."
    output = terminal.run("type", "check", "crm", "crm.json")
    assert warning in output
    assert "Newly masked: /zone in 2 configs\nNewly visible: /credentials/id in 2 configs\n" in output
    assert SECRET not in output
    assert warning in terminal.run("type", "put", "crm", "crm.json")
    assert "Newly masked: /token1 in 1 config\n" in terminal.run("type", "check", "crm")


def test_exported_configs_are_imported_into_another_service(terminal: Terminal, tmp_path: Path) -> None:
    for n in range(5):
        terminal.save(f"t{n}", {"n": n, "password": SECRET})
    masked = terminal.folder / "masked.jsonl"
    assert "5 configs exported, secrets masked." in terminal.run("export", str(masked))
    assert SECRET not in masked.read_text()
    assert masked.read_text().count(MASK) == 5
    output = terminal.run("import", str(masked), code=1)
    assert "5 refused" in output
    assert "line 1: " in output
    opened = terminal.folder / SKIPPED_FOLDER / "opened.jsonl"  # the canary search skips this folder
    opened.parent.mkdir()
    terminal.run("export", str(opened), "t*", "--secrets", "opened")
    assert opened.read_text().count(SECRET) == 5
    assert opened.stat().st_mode & 0o077 == 0
    assert "exists" in terminal.run("export", str(opened), code=1)
    assert "5 unchanged." in terminal.run("import", str(opened))
    with run_service(tmp_path / "other") as service:
        other = Terminal(service, service.add_admin(), terminal.folder)
        assert "5 created (dry run: nothing was stored)." in other.run("import", str(opened), "--dry-run")
        assert other.run("export", "-").strip() == "0 configs exported, secrets masked."
        lines = opened.read_text() + '{"tenant": "t0"}\nnonsense\n' + opened.read_text().splitlines()[0] + "\n"
        output = other.run("import", stdin=lines, code=1)
        assert "5 created, 2 refused, 1 unchanged." in output
        assert "line 6: it must be an object" in output
        assert "line 7: it is not valid JSON at line 7, column 1" in output
        invalid = (
            b'{"tenant": "t", "integration_type": "crm", "configuration": {"a": "\\ud800"}}\n\xff\n' + b"[" * 9_000
        )
        (terminal.folder / "invalid.jsonl").write_bytes(invalid)
        assert "3 refused." in other.run("import", "invalid.jsonl", code=1)
        # The command sends configurations unparsed: a repeated member or an inexact number reaches the service.
        prefix = '{"tenant": "x%d", "integration_type" : "crm", "configuration": '
        endings = (
            '{"a": 1, "a": 2}',
            '{"a": 12345678901234567890.5}',
            '{"a": NaN}',
            '{}, "tenant": "y"',
            '{"a": 1}, "b": [2]',
        )
        lines = "\n".join(f"{prefix % number}{ending}}}" for number, ending in enumerate(endings))
        assert "1 created, 4 refused." in other.run("import", stdin=lines, code=1)
        assert "is not valid JSON" in other.run("config", "set", "x9", "crm", stdin='{}, "note": "not mine"', code=1)
        exported = other.run("export", "-").splitlines()[:-1]
        assert [json.loads(line)["tenant"] for line in exported] == ["t0", "t1", "t2", "t3", "t4", "x4"]
        assert json.loads(other.run("config", "get", "t4", "crm")) == {"n": 4, "password": SECRET}


def test_a_watch_prints_each_change_once_across_a_restart(terminal: Terminal) -> None:
    command = [sys.executable, "-m", "confide", "config", "watch", "acme", "--json", "--after", "0"]
    with (terminal.folder / "events.jsonl").open("wb") as out:
        watching = subprocess.Popen(
            command, cwd=terminal.folder, env=build_environment(**terminal.env), stdout=out, stderr=subprocess.DEVNULL
        )
        try:
            terminal.save("acme", {"n": 1})
            wait_for_lines(terminal, 1)
            terminal.service.stop()
            terminal.service.start()
            terminal.save("acme", {"n": 2})
            terminal.save("globex", {"n": 2})
            terminal.save("acme", {"n": 3})
            events = [json.loads(line) for line in wait_for_lines(terminal, 3)]
        finally:
            watching.terminate()
            watching.wait(10)
    found = [(event["event"], event["tenant"], event["version"]) for event in events]
    assert found == [("saved", "acme", 1), ("saved", "acme", 2), ("saved", "acme", 3)]


def wait_for_lines(terminal: Terminal, count: int) -> list[str]:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        lines = (terminal.folder / "events.jsonl").read_text().splitlines()
        if len(lines) >= count:
            return lines
        time.sleep(0.05)
    raise AssertionError((terminal.folder / "events.jsonl").read_text())


def test_an_audit_export_is_verified_offline_and_an_altered_entry_is_named(terminal: Terminal) -> None:
    for n in range(10):
        terminal.save("acme", {"n": n})
    time.sleep(1.5)  # until the entries are chained
    output = terminal.run("audit", "export", "audit.jsonl")
    key = output.split("public key ")[1].split(":")[0]
    assert "are in order and unaltered; the first " in terminal.run("audit", "verify", "audit.jsonl", "--key", key)
    assert "save" in terminal.run("audit", "list", "--tenant", "acme", "--limit", "3")
    path = terminal.folder / "audit.jsonl"
    lines = path.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if '"save"' in line)
    lines[number] = lines[number].replace('"save"', '"read"')
    path.write_text("\n".join(lines) + "\n")
    assert f"BAD: entry {number + 1}:" in terminal.run("audit", "verify", "audit.jsonl", code=10)
    path.write_text("nonsense\n")
    assert "BAD: entry 1: its line is not an entry" in terminal.run("audit", "verify", "audit.jsonl", code=10)
