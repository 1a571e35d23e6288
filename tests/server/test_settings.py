"""Settings: what they reject, and that an error never quotes a secret."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from confide.cli.settings import find_unknown_variables
from confide.server.settings import Settings, get_variable
from support.app import PASSWORD
from support.canaries import make_canary
from support.postgres import LocalPostgresServer
from support.processes import run_confide, run_service

ROOT = Path(__file__).parents[2]

# A Service named `confide` in Kubernetes, and `app` as its Docker link.
SERVICE_VARIABLES = {
    "CONFIDE_PORT": "tcp://172.20.0.7:8080",
    "CONFIDE_PORT_8080_TCP": "tcp://172.20.0.7:8080",
    "CONFIDE_PORT_8080_TCP_ADDR": "172.20.0.7",
    "CONFIDE_PORT_8080_TCP_PORT": "8080",
    "CONFIDE_PORT_8080_TCP_PROTO": "tcp",
    "CONFIDE_SERVICE_HOST": "172.20.0.7",
    "CONFIDE_SERVICE_PORT": "8080",
    "CONFIDE_SERVICE_PORT_HTTP": "8080",
    "CONFIDE_DATABASE_PORT": "tcp://172.20.0.8:5432",
}
AMBIGUOUS = [
    "postgresql://confide:qz#ss@127.0.0.1:1/db",
    "postgresql://confide:qz/ss@127.0.0.1:1/db",
    "postgresql://confide:qz?ss@127.0.0.1:1/db",
    "postgresql://confide:qz@ss@127.0.0.1:1/db",
    "postgresql://confide:qz?ss=qz@127.0.0.1:1/db",
    "postgresql://confide:qz@ss/qz@127.0.0.1:1/db",
    "postgresql://confide:qz@ss?qz@127.0.0.1:1/db",
]
SOUND = [
    "postgresql://confide:qz%23ss@127.0.0.1:1/db",
    "postgresql://confide@one:1,two:2/db?target_session_attrs=read-write",
    "postgres:///db?host=/run/postgresql&user=confide",
    "postgresql://confide:qz@127.0.0.1:1/db?application_name=confide@one",
]


@pytest.mark.parametrize("url", AMBIGUOUS)
@pytest.mark.parametrize("name", ["database", "io_sinks"])
def test_a_password_with_reserved_characters_is_explained_and_not_quoted(name: str, url: str) -> None:
    with pytest.raises(ValidationError, match="percent-encode reserved characters") as error:
        Settings(**{name: url})  # type: ignore[arg-type]
    assert "qz" not in str(error.value)


@pytest.mark.parametrize("url", SOUND)
def test_other_urls_of_postgresql_are_accepted(url: str) -> None:
    assert Settings(database=url).database_url == url


def test_a_command_names_the_setting_in_one_line(tmp_path: Path) -> None:
    done = run_confide("migrate", cwd=tmp_path, env={"CONFIDE_DATABASE": AMBIGUOUS[0]})
    assert done.returncode != 0
    assert "percent-encode reserved characters" in done.stderr
    assert "qz#" not in done.stderr
    assert "Traceback" not in done.stderr


def test_variables_that_describe_a_service_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICE_VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert Settings().port == 8080
    assert find_unknown_variables() == set()
    monkeypatch.setenv("APP_PORT", "9000")
    assert Settings().port == 9000


def test_empty_variables_count_as_unset_except_the_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*map(get_variable, Settings.model_fields), "APP_PORT", "APP_ENV"):
        monkeypatch.setenv(name, "")
    settings = Settings()
    assert settings.io_sinks.get_secret_value() == ""
    changed = {name for name, field in Settings.model_fields.items() if getattr(settings, name) != field.default}
    assert changed == {"io_sinks"}


def test_the_service_starts_beside_a_service_of_its_name_and_with_empty_variables(tmp_path: Path) -> None:
    env = {**SERVICE_VARIABLES, "CONFIDE_DATABASE": "", "CONFIDE_POOL_SIZE": "", "CONFIDE_TLS_CERT": ""}
    with run_service(tmp_path, env=env) as service:
        assert "is not a setting" not in service.log.read_text()


INVALID = {"CONFIDE_WORKERS": "0", "CONFIDE_PORT": "http", "CONFIDE_METRICS": "yes", "CONFIDE_CHECKPOINTS": "/no/file"}


def test_a_command_judges_only_the_settings_that_it_uses(tmp_path: Path) -> None:
    env = {**INVALID, "CONFIDE_IO_SINKS": "nowhere", "CONFIDE_TRUSTED_PROXIES": "x"}
    assert run_confide("migrate", cwd=tmp_path, env=env).returncode == 0
    done = run_confide("user", "add", "root", "--admin", cwd=tmp_path, env=env, stdin=PASSWORD + "\n")
    assert done.returncode == 0, done.stderr
    done = run_confide("backup", "file", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    (tmp_path / "other").mkdir()
    shutil.copyfile(tmp_path / "confide-data" / "master.keys", tmp_path / "other" / "master.keys")
    # A restore writes beside the checkpoints.
    done = run_confide("restore", "file", "--data", "other", cwd=tmp_path, env=env)
    assert (done.returncode, "CONFIDE_CHECKPOINTS" in done.stderr) == (2, True)
    done = run_confide("restore", "file", "--data", "other", cwd=tmp_path, env={**env, "CONFIDE_CHECKPOINTS": ""})
    assert done.returncode == 0, done.stderr
    assert run_confide("keys", "rotate", cwd=tmp_path, env=env).returncode == 0
    done = run_confide("backup", "file", cwd=tmp_path, env={**env, "CONFIDE_POOL_SIZE": "many"})
    assert (done.returncode, "CONFIDE_POOL_SIZE" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", INVALID)
def test_the_service_judges_every_setting(tmp_path: Path, name: str) -> None:
    done = run_confide("serve", cwd=tmp_path, env={name: INVALID[name]})
    assert (done.returncode, name in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("name", ["CONFIDE_TLS_KEY", "CONFIDE_TLS_CERT"])
def test_pem_text_instead_of_a_path_is_explained_and_not_quoted(tmp_path: Path, name: str) -> None:
    secret = make_canary("key")
    done = run_confide("serve", cwd=tmp_path, env={name: f"-----BEGIN PRIVATE KEY-----\n{secret}\n"})
    assert done.returncode == 2
    assert "Write it to a file, and pass the path" in done.stderr.replace("\n", " ")
    assert secret not in done.stderr


PASSWORD_CHARACTERS = """a@b/c:d#e?f%20g&h=i+j k"l'm\\n$o{p}[q]|r;s<t>u^v`w~x,y!z*é"""


def test_a_password_in_the_compose_file_can_hold_any_character(tmp_path: Path) -> None:
    """The service gets the variables of the compose file, and a PostgreSQL that checks passwords."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    variables = services["app"]["environment"]
    placeholder = services["database"]["environment"]["POSTGRES_PASSWORD"]
    assert variables["PGPASSWORD"] == placeholder
    assert "$" not in variables["CONFIDE_DATABASE"]
    server = LocalPostgresServer()
    server.start()
    try:
        server.execute("ALTER ROLE confide PASSWORD '{}'".format(PASSWORD_CHARACTERS.replace("'", "''")))
        server.execute("CREATE DATABASE confide")
        server.stop()
        (server.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        server.start()
        url = variables["CONFIDE_DATABASE"].replace("@database:5432", f"@{server.host}:{server.port}")
        wrong = run_confide("migrate", cwd=tmp_path, env={"CONFIDE_DATABASE": url, "PGPASSWORD": "wrong"})
        assert wrong.returncode == 4, wrong.stderr
        done = run_confide("migrate", cwd=tmp_path, env={"CONFIDE_DATABASE": url, "PGPASSWORD": PASSWORD_CHARACTERS})
        assert (done.returncode, "Applied" in done.stdout) == (0, True), done.stderr
    finally:
        server.finish()
