"""Test the commands against a running service and on the host."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.app import PASSWORD
from support.canaries import make_canary
from support.processes import Service, run_confide, run_service

NEW = make_canary("password")


class Shell:
    """Terminal of one user, with a home folder and the URL of the service."""

    def __init__(self, service: Service, home: Path) -> None:
        self.service = service
        self.home = home
        self.env = {"XDG_CONFIG_HOME": str(home), "CONFIDE_URL": service.url, **list_variables(service)}

    def run(self, *args: str, stdin: str = "", code: int = 0) -> str:
        done = run_confide(*args, cwd=self.service.folder, stdin=stdin, env=self.env)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr


def list_variables(service: Service) -> dict[str, str]:
    return {name: value for name, value in service._env.items() if name.startswith("CONFIDE_")}


@pytest.fixture
def shell(tmp_path: Path, database: str | None) -> Iterator[Shell]:
    with run_service(tmp_path / "service", database=database) as service:
        yield Shell(service, tmp_path / "home")


def test_a_config_is_created_changed_and_deleted_by_commands(shell: Shell, tmp_path: Path) -> None:
    run = shell.run
    assert "Not logged in" in run("config", "list", code=1)
    assert run("user", "add", "root", "--admin", stdin=PASSWORD + "\n") == "User root has id 1.\n"
    assert "Wrong login or password" in run("login", "root", stdin=NEW + "\n", code=1)
    assert run("login", "root", stdin=PASSWORD + "\n").startswith("Logged in as root until ")
    token_file = shell.home / "confide" / "token.json"
    assert token_file.stat().st_mode & 0o777 == 0o600
    secret = make_canary("value")
    output = run("config", "set", "acme", "crm", stdin=json.dumps({"password": secret, "a": 1}))
    assert output == "Config 'acme : crm' is created, version 1.\n"
    change = tmp_path / "change.json"
    change.write_text('{"a": null, "b": [1.5]}')
    assert run("config", "set", "acme", "crm", str(change)) == "Config 'acme : crm' is updated, version 2.\n"
    assert json.loads(run("config", "get", "acme", "crm")) == {"password": secret, "b": [1.5]}
    assert run("config", "set", "acme", "crm", "--replace", stdin="{}").startswith("Config 'acme : crm' is updated")
    listed = json.loads(run("config", "list", "--json"))
    assert [(config["tenant"], config["version"]) for config in listed] == [("acme", 3)]
    assert "acme" in run("config", "list", "ac*")
    assert run("config", "delete", "acme", "crm").startswith("Config 'acme : crm' is ")
    for command in (("get", "acme", "crm"), ("delete", "acme", "crm"), ("history", "no", "crm")):
        assert f"no config '{command[1]} : crm'" in run("config", *command, code=1)
    for text, message in (
        ("{", "not valid JSON"),
        ('{"a":1,"a":2}', "twice"),
        ('"x"', "not a JSON object"),
        ('{"n":0.10000000000000000001}', "exactly"),
        (r'{"s":"\ud800"}', "surrogate"),
        ("", "empty"),
    ):
        assert message in run("config", "set", "acme", "crm", stdin=text, code=1)
    assert "levels" in run("config", "set", "acme", "crm", stdin='{"a":' * 3_000 + "1" + "}" * 3_000, code=1)
    change.write_text('{"password": "********"}')
    assert "/configuration/password" in run("config", "set", "acme", "crm", str(change), code=1)


def test_commands_mask_secrets_and_open_one_member(shell: Shell) -> None:
    run = shell.run
    run("user", "add", "root", "--admin", stdin=PASSWORD + "\n")
    run("login", "root", stdin=PASSWORD + "\n")
    secret = make_canary("value")
    run("config", "set", "acme", "crm", stdin=json.dumps({"password": secret, "a": 1}))
    assert json.loads(run("config", "get", "acme", "crm", "--masked")) == {"password": "********", "a": 1}
    assert json.loads(run("config", "get", "acme", "crm", "--pointer", "/password")) == secret
    assert "no member at this pointer" in run("config", "get", "acme", "crm", "--pointer", "/b", code=1)
    assert "cannot be combined" in run("config", "get", "acme", "crm", "--pointer", "/a", "--masked", code=2)
    assert secret not in run("config", "version", "acme", "crm", "1", "--masked")
    assert secret not in run("config", "diff", "acme", "crm", "0", "1", "--masked")
    preview = run("config", "set", "acme", "crm", "--replace", "--dry-run", "--masked", stdin="{}")
    assert "- /password" in preview
    assert secret not in preview
    assert "Add --dry-run" in run("config", "set", "acme", "crm", "--masked", stdin="{}", code=2)
    run("config", "delete", "acme", "crm")
    preview = run("config", "rollback", "acme", "crm", "1", "--dry-run", "--masked")
    assert "+ /password" in preview
    assert secret not in preview


def test_users_and_tokens_are_managed_by_commands(shell: Shell) -> None:
    run = shell.run
    run("user", "add", "root", "--admin", stdin=PASSWORD + "\n")
    run("login", "root", stdin=PASSWORD + "\n")
    run("user", "add", "robot", "--service", "--grant", "reader:acme:*")
    assert "ROLE:TENANT:TYPE" in run("user", "add", "x", "--service", "--grant", "reader", code=2)
    assert "already exists" in run("user", "add", "robot", "--service", code=1)
    users = json.loads(run("user", "list", "--json"))
    assert [(user["login"], user["has_password"]) for user in users] == [("robot", False), ("root", True)]
    assert "reader:acme:*" in run("user", "list")
    grants = ("editor:acme:*", "viewer:globex:crm")
    assert run("user", "set-grants", "Robot", *grants) == f"Grants of user robot: {', '.join(grants)}.\n"
    assert "viewer:globex:crm" in run("user", "list")
    assert run("user", "set-grants", "robot") == "Grants of user robot: none.\n"
    assert "no user missing" in run("user", "set-grants", "missing", *grants, code=1)
    assert "last admin" in run("user", "set-grants", "root", code=1)
    run("user", "set-grants", "robot", "reader:acme:*")
    added = json.loads(run("token", "add", "worker", "--login", "robot", "--days", "7", "--json"))
    assert "worker" in run("token", "list")
    as_robot = run_confide(
        "config", "list", cwd=shell.service.folder, env={**shell.env, "CONFIDE_TOKEN": added["token"]}
    )
    assert as_robot.returncode == 0
    assert run("user", "disable", "robot") == "User robot is disabled.\n"
    assert run("user", "disable", "robot", "--enable") == "User robot is enabled.\n"
    assert run("token", "revoke", str(added["id"])) == f"Token {added['id']} is revoked.\n"
    assert f"no token {added['id']}" in run("token", "revoke", str(added["id"]), code=1)
    assert "service account" in run("user", "password", "robot", stdin=NEW + "\n", code=1)
    assert "There is no user missing." in run("user", "password", "missing", stdin=NEW + "\n", code=1)
    assert "The password is empty." in run("login", "root", code=1)
    # A table prints markup in a label unchanged.
    run("token", "add", "[/x][red]evil")
    assert "[/x][red]evil" in run("token", "list")
    token = json.loads(run("token", "add", "kept", "--json"))["token"]
    assert "all its sessions have ended" in run("user", "password", "root", "--keep-tokens", stdin=PASSWORD + "\n")
    with_token = {**shell.env, "CONFIDE_TOKEN": token}
    assert run_confide("token", "list", cwd=shell.service.folder, env=with_token).returncode == 0
    run("login", "root", stdin=PASSWORD + "\n")
    assert "all its sessions and service tokens" in run("user", "password", "root", stdin=NEW + "\n")
    time.sleep(1)  # the promised time until other processes end the session
    assert "invalid or expired" in run("user", "list", code=1)
    ended = run_confide("token", "list", cwd=shell.service.folder, env=with_token)
    assert "invalid or expired" in ended.stderr
    run("login", "root", stdin=NEW + "\n")


@pytest.mark.parametrize("command", ["unlock", "password"])
def test_a_user_who_is_locked_out_is_unlocked_on_the_host(shell: Shell, command: str) -> None:
    run = shell.run
    run("user", "add", "root", "--admin", stdin=PASSWORD + "\n")
    for _ in range(5):
        run("login", "root", stdin=NEW + "\n", code=1)
    assert "Too many failed logins" in run("login", "root", stdin=PASSWORD + "\n", code=1)
    run("user", command, "root", stdin=PASSWORD + "\n" if command == "password" else "")
    run("login", "root", stdin=PASSWORD + "\n")
    actions = {"unlock": "unlock user", "password": "change user"}
    assert actions[command] in run("audit", "list")
    assert "no user" in run("user", command, "stranger", stdin=PASSWORD + "\n", code=1)


def test_a_missing_service_is_reported_in_one_sentence(tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path), "CONFIDE_URL": "http://127.0.0.1:1", "CONFIDE_TOKEN": "x"}
    done = run_confide("config", "list", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (1, "confide: No service answers at http://127.0.0.1:1.\n")


def test_a_backup_is_restored_on_another_host_with_a_new_epoch(shell: Shell, tmp_path: Path) -> None:
    run = shell.run
    run("user", "add", "root", "--admin", stdin=PASSWORD + "\n")
    run("login", "root", stdin=PASSWORD + "\n")
    run("config", "set", "acme", "crm", stdin='{"a": 1}')
    token = json.loads(run("token", "add", "worker", "--json"))["token"]
    file = tmp_path / "backup"
    assert "master keys are not in it" in run("backup", str(file))
    assert "never overwrites" in run("backup", str(file), code=1)
    assert "not empty" in run("restore", str(file), code=1)
    with run_service(tmp_path / "other") as other:
        other.stop()
        shutil.rmtree(other.data)
        other.data.mkdir(mode=0o700)
        (other.data / "master.keys").write_bytes((shell.service.data / "master.keys").read_bytes())
        done = run_confide("restore", str(file), cwd=other.folder)
        assert done.returncode == 0, done.stderr
        assert "a new epoch begins" in done.stdout
        other.start()
        with other.client(token) as client:
            params = {"tenant": "acme", "integration_type": "crm"}
            assert client.get("/config", params=params).json()["configuration"] == {"a": 1}
        session = json.loads((shell.home / "confide" / "token.json").read_text())["token"]
        with other.client(session) as client:
            assert client.get("/configs").status_code == 401
    broken = tmp_path / "broken"
    broken.write_bytes(file.read_bytes()[:-40])
    assert "not a complete Confide backup" in run("restore", str(broken), code=8)


def test_a_second_migration_changes_nothing(tmp_path: Path, database: str | None) -> None:
    env = {} if database is None else {"CONFIDE_DATABASE": database}
    assert (
        run_confide("migrate", cwd=tmp_path, env=env).stdout
        == "Applied 0001_first, 0002_types_chain_usage, 0003_epoch_number, 0004_signed_rows, 0005_audit_removals.\n"
    )
    assert run_confide("migrate", cwd=tmp_path, env=env).stdout == "The schema is up to date.\n"


def test_a_stored_token_is_sent_only_to_the_service_that_issued_it(shell: Shell) -> None:
    shell.run("user", "add", "root", "--admin", stdin=PASSWORD + "\n")
    shell.run("login", "root", stdin=PASSWORD + "\n")
    output = shell.run("config", "list", "--url", "http://127.0.0.1:1", code=1)
    assert "Not logged in at http://127.0.0.1:1" in output
    assert "begins with http://" in shell.run("login", "x", "--url", "127.0.0.1:1", code=2).replace("\n", " ")
    (shell.home / "confide" / "token.json").write_text("[1]")
    assert "log in again" in shell.run("config", "list", code=1)


@pytest.mark.parametrize(
    "command",
    [("backup", "b"), ("keys", "rotate"), ("user", "password", "x"), ("user", "add", "x", "--admin")],
)
def test_a_command_in_a_wrong_folder_creates_no_store(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run_confide(*command, cwd=tmp_path, stdin=PASSWORD + "\n")
    assert (done.returncode, "There is no database in confide-data" in done.stderr) == (1, True), done.stderr
    assert "--database" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_backup_into_a_missing_folder_fails(shell: Shell, tmp_path: Path) -> None:
    assert "does not exist. Create it first" in shell.run("backup", str(tmp_path / "no" / "file"), code=1)


def test_a_damaged_backup_is_not_restored(shell: Shell, tmp_path: Path) -> None:
    shell.run("user", "add", "root", "--admin", stdin=PASSWORD + "\n")
    file = tmp_path / "backup"
    shell.run("backup", str(file))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x55
    file.write_bytes(data)
    assert f"{file} is not a complete Confide backup" in shell.run(
        "restore", str(file), "--data", str(tmp_path / "new"), code=8
    )
    assert list(tmp_path.glob("*.partial")) == []


def test_a_tenant_destroyed_after_a_backup_is_destroyed_again_after_its_restore(shell: Shell, tmp_path: Path) -> None:
    run = shell.run
    run("user", "add", "root", "--admin", stdin=PASSWORD + "\n")
    run("login", "root", stdin=PASSWORD + "\n")
    for tenant in ("acme", "globex"):
        run("config", "set", tenant, "crm", stdin='{"a": 1}')
    run("backup", str(tmp_path / "backup"))
    token = json.loads((shell.home / "confide" / "token.json").read_text())["token"]
    with shell.service.client(token) as client:
        assert client.delete("/tenants/acme", params={"confirm": "acme"}).status_code == 200
    data = tmp_path / "restored" / "confide-data"
    data.mkdir(parents=True)
    for name in ("master.keys", "destroyed.keys"):
        (data / name).write_bytes((shell.service.data / name).read_bytes())
    assert run_confide("restore", str(tmp_path / "backup"), cwd=data.parent).returncode == 0
    with run_service(data.parent) as restored, restored.client(restored.login()) as client:
        address = {"tenant": "acme", "integration_type": "crm"}
        assert client.get("/config", params=address).status_code == 404
        assert client.get("/config", params={**address, "tenant": "globex"}).status_code == 200
        saved = client.post("/config", json={**address, "configuration": {"b": 1}})
        assert (saved.status_code, saved.json()["version"]) == (200, 3)
        assert client.get("/config", params=address).json()["configuration"] == {"b": 1}
        assert client.get("/health/ready").json()["reasons"] == ["unsafe-durability"]


def test_versions_are_listed_compared_and_rolled_back(shell: Shell) -> None:
    run = shell.run
    run("user", "add", "root", "--admin", stdin=PASSWORD + "\n")
    run("login", "root", stdin=PASSWORD + "\n")
    run("config", "set", "acme", "crm", "--note", "the first", stdin='{"a": 1, "b": {"c": "x"}}')
    preview = run("config", "set", "acme", "crm", "--dry-run", stdin='{"a": 2, "d": "new", "b": {"c": null}}')
    assert preview.splitlines() == [
        "~ /a  1 → 2",
        '- /b/c  "x"',
        '+ /d  "new"',
        "Would update to version 2. Nothing was stored.",
    ]
    run("config", "set", "acme", "crm", stdin='{"a": 2, "d": "new", "b": {"c": null}}')
    assert run("config", "diff", "acme", "crm", "1", "2").splitlines() == preview.splitlines()[:3]
    assert json.loads(run("config", "diff", "acme", "crm", "0", "1", "--json"))["added"] == {"/a": 1, "/b": {"c": "x"}}
    assert json.loads(run("config", "version", "acme", "crm", "1")) == {"a": 1, "b": {"c": "x"}}
    run("config", "delete", "acme", "crm", "--note", "moved")
    versions = json.loads(run("config", "history", "acme", "crm", "--json"))
    assert [(version["version"], version["kind"], version["note"]) for version in versions] == [
        (3, "retired", "moved"),
        (2, "saved", None),
        (1, "saved", "the first"),
    ]
    assert "the first" in run("config", "history", "acme", "crm")
    assert "Would create version 4" in run("config", "rollback", "acme", "crm", "1", "--dry-run")
    missing = "There is no version {} of config 'acme : crm', or you may not see it."
    assert missing.format(9) in run("config", "version", "acme", "crm", "9", code=1)
    assert missing.format("1 or 9") in run("config", "diff", "acme", "crm", "1", "9", code=1)
    assert run("config", "rollback", "acme", "crm", "1") == "Config 'acme : crm' is created, version 4.\n"
    assert json.loads(run("config", "get", "acme", "crm")) == {"a": 1, "b": {"c": "x"}}
    assert "does not exist or is a tombstone" in run("config", "rollback", "acme", "crm", "9", code=1)
