"""The example of a PostgreSQL cluster in `ops/postgresql-ha` fits together, and fits Confide."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from confide.server.settings import Settings
from support.patroni import ADDRESSES, FILES, NODES, read_env, read_password
from support.processes import build_environment
from support.waiting import wait_until

README = (FILES / "README.md").read_text()


def read_database_urls() -> list[str]:
    return re.findall(r"(?m)^#?CONFIDE_DATABASE=(.*)$", (FILES / "confide.env").read_text())


def test_the_environment_of_confide_has_only_settings_that_exist() -> None:
    known = {f"CONFIDE_{name.upper()}" for name in Settings.model_fields}
    assert read_env("confide.env").keys() <= known


def test_the_environment_of_confide_shows_one_url_for_each_address() -> None:
    urls = read_database_urls()
    assert len(urls) == len(ADDRESSES)
    database = Settings(database=urls[0]).database
    assert database is not None
    assert database.get_secret_value() == urls[0]
    haproxy, pgbouncer = (urlsplit(url) for url in urls[1:])
    assert read_env("haproxy.env")["PRIMARY_BIND"] == haproxy.netloc.rpartition("@")[2]
    text = (FILES / "pgbouncer.ini").read_text()
    assert f"listen_addr = {pgbouncer.hostname}\nlisten_port = {pgbouncer.port}\n" in text
    assert f"* = host={haproxy.hostname} port={haproxy.port}\n" in text


@pytest.mark.parametrize("number", range(len(ADDRESSES)))
def test_every_url_has_the_role_and_the_database_that_the_example_creates(number: int) -> None:
    url = read_database_urls()[number]
    sql = (FILES / "confide.sql").read_text()
    account, _, rest = url.removeprefix("postgresql://").partition("@")
    assert account == f"confide:{read_password()}"
    assert f"CREATE ROLE confide LOGIN PASSWORD '{read_password()}';" in sql
    assert re.search(r"/confide(\?|$)", rest)
    assert "CREATE DATABASE confide OWNER confide;" in sql


def test_all_files_name_the_same_three_machines() -> None:
    hosts = {f"{name}.example.com" for name in NODES}
    haproxy = read_env("haproxy.env")
    assert {haproxy[f"{name.upper()}_POSTGRESQL"].partition(":")[0] for name in NODES} == hosts
    for text in (
        read_env("patroni.env")["PATRONI_ETCD3_HOSTS"],
        read_env("etcd.env")["ETCD_INITIAL_CLUSTER"],
        read_database_urls()[0],
    ):
        assert set(re.findall(r"db\d\.example\.com", text)) == hosts
    variables = set(re.findall(r"\$\{(\w+)\}", (FILES / "haproxy.cfg").read_text()))
    assert variables == haproxy.keys()


def test_patroni_waits_for_a_second_machine_before_a_commit_returns() -> None:
    settings = yaml.safe_load((FILES / "patroni.yml").read_text())["bootstrap"]["dcs"]
    assert settings["synchronous_mode"] is True
    assert settings["ttl"] >= settings["loop_wait"] + 2 * settings["retry_timeout"]


def test_pgbouncer_uses_session_mode_and_has_room_for_two_services() -> None:
    text = (FILES / "pgbouncer.ini").read_text()
    assert "\npool_mode = session\n" in text
    found = re.search(r"(?m)^default_pool_size = (\d+)$", text)
    assert found is not None
    workers = int(read_env("confide.env")["CONFIDE_WORKERS"])
    assert int(found[1]) >= 2 * workers * (Settings.model_fields["pool_size"].default + 1)


def test_the_readme_of_the_example_lists_every_file() -> None:
    names = {path.name for path in FILES.iterdir()} - {"README.md"}
    assert {name for name in names if f"`{name}`" not in README} == set()


def test_the_processes_of_a_cluster_end_with_a_killed_test(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    test = """
import os, pathlib, signal, subprocess, sys
from support.patroni import start_guard
folder = pathlib.Path(sys.argv[1])
start_guard(folder)
subprocess.Popen(["sleep", "600"], cwd=folder, start_new_session=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", test, folder], env=build_environment(PYTHONPATH=tests), capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until(lambda: not folder.exists(), "the folder is removed")
    assert not [link for link in Path("/proc").glob("[0-9]*/cwd") if is_inside(link, folder)]


def is_inside(link: Path, folder: Path) -> bool:
    try:
        return str(link.readlink()).startswith(str(folder))
    except OSError:
        return False
