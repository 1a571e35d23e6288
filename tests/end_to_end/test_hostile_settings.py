"""The service and the commands on the host, on a PostgreSQL whose sessions begin with hostile settings."""

from __future__ import annotations

from pathlib import Path

from support.app import TYPE
from support.distribution import HOSTILE, DistributionServer
from support.processes import run_confide, run_service

CONFIG = {"tenant": "acme", "integration_type": TYPE}


def run_on(url: str, folder: Path, *args: str) -> str:
    done = run_confide(*args, cwd=folder, env={"CONFIDE_DATABASE": url})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hostile_settings_break_no_command_on_the_host(tmp_path: Path, distribution: DistributionServer) -> None:
    original, restored = tmp_path / "original", tmp_path / "restored"
    url, other_url = distribution.new_database(), distribution.new_database()
    for one in (url, other_url):
        distribution.set_for_database(one, HOSTILE)
    original.mkdir()
    assert "Applied" in run_on(url, original, "migrate")
    with run_service(original, "--workers", "2", database=url, is_unsafe=False) as service:
        with service.client(service.add_admin()) as client:
            assert client.post("/config", json={**CONFIG, "configuration": {"n": 1}}).status_code == 200
            run_on(url, original, "keys", "rotate")
            assert client.post("/config", json={**CONFIG, "configuration": {"n": 2}}).status_code == 200
        run_on(url, original, "backup", "backup.gz")
    (restored / "confide-data").mkdir(parents=True)
    (restored / "confide-data" / "master.keys").write_bytes((service.data / "master.keys").read_bytes())
    assert "rows restored" in run_on(other_url, restored, "restore", str(original / "backup.gz"))
    with (
        run_service(restored, database=other_url, is_unsafe=False) as service,
        service.client(service.login()) as client,
    ):
        read = client.get("/config", params=CONFIG)
        assert read.status_code == 200, read.text
        assert (read.json()["configuration"], read.headers["config-version"]) == ({"n": 2}, "2")
