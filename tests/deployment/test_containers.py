"""The image and the compose files are built and run. `make test-containers` runs these tests."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from confide.names import ConfigKey
from support.app import PASSWORD, TYPE
from support.canaries import make_canary
from support.containers import BASE, DATABASE, ROOT, SERVICE, ContainerEngine, require_engine, start_engine
from support.ports import find_free_port
from support.processes import CLIENT_SECONDS
from support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1_800)]
KEY = ConfigKey("acme", TYPE)
PARAMS = {"tenant": KEY.tenant, "integration_type": KEY.integration_type}
BEFORE = ROOT / "tests" / "compatibility" / "store_before"
DATA = "/var/lib/confide/data"
# Every kind of character that means something in a URL, a shell or a compose file.
DATABASE_PASSWORD = make_canary("compose") + "@:/?#[]%20$$&+ '\""
ARBITRARY_USER = 54_321
HARDENED = (
    "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", str(ARBITRARY_USER),
)  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Iterator[ContainerEngine]:
    require_engine()
    with start_engine() as started:
        started.import_image(BASE)
        yield started


@pytest.fixture(scope="module")
def image(engine: ContainerEngine) -> str:
    """Build the image of the service."""
    arguments = ("--network", "host", "--build-arg", f"BASE={BASE}", "--tag", SERVICE)
    engine.docker("build", *arguments, ROOT)
    return SERVICE


class Service:
    """A client of the service in a container."""

    def __init__(self, port: int, *, address: str = "127.0.0.1") -> None:
        self.url = f"http://{address}:{port}"
        self.token = ""

    def request(self, method: str, path: str, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        reply = httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=CLIENT_SECONDS, **more)
        assert reply.status_code < 300, reply.text
        return reply.json()

    def add_admin(self, log: str) -> None:
        """Add the first user with the setup token in the log, and log in."""
        found = re.search(r"Authorization: Bearer (\S+?)'", log)
        assert found, log
        self.token = found[1]
        self.request("POST", "/user", json={"login": "root", "password": PASSWORD})
        self.token = ""
        self.token = self.request("POST", "/login", json={"login": "root", "password": PASSWORD})["token"]

    def save(self, configuration: Any) -> None:
        self.request("POST", "/config", json={**PARAMS, "configuration": configuration})

    def read(self) -> Any:
        return self.request("GET", "/config", params=PARAMS)["configuration"]


class Project:
    """The compose file of the repository, with images that exist here."""

    def __init__(self, engine: ContainerEngine, folder: Path) -> None:
        self._engine = engine
        self._override = folder / "override.yml"
        app = {"image": SERVICE, "build": {"network": "host", "args": {"BASE": BASE}}}
        self._override.write_text(yaml.safe_dump({"services": {"app": app, "database": {"image": DATABASE}}}))
        self.port = find_free_port()
        self._env = {"APP_PORT": str(self.port), "POSTGRES_PASSWORD": DATABASE_PASSWORD}

    def compose(self, *args: str) -> str:
        files = ("--file", ROOT / "docker-compose.yml", "--file", self._override)
        return self._engine.run("docker-compose", "--project-name", "confide-test", *files, *args, env=self._env)

    def find_container(self, service: str) -> str:
        return self.compose("ps", "--quiet", service).split()[-1]


def test_compose_starts_saves_stops_within_the_grace_period_and_reads_again(
    engine: ContainerEngine, image: str, tmp_path: Path
) -> None:
    engine.import_image(DATABASE)
    project = Project(engine, tmp_path)
    try:
        project.compose("up", "--build", "--detach")
        app = project.find_container("app")
        engine.wait_until_healthy(app)
        service = Service(project.port)
        service.add_admin(project.compose("logs", "--no-color", "app"))
        service.save({"host": "fis.example"})
        project.compose("stop")
        # 137 would mean that a process was killed after its grace period.
        for name in ("app", "database"):
            assert engine.inspect(project.find_container(name), ".State.ExitCode") == "0"
        project.compose("start")
        engine.wait_until_healthy(app)
        assert service.read() == {"host": "fis.example"}
        assert make_canary("compose") not in project.compose("logs", "--no-color")
    finally:
        project.compose("down", "--volumes", "--timeout", "1")


def test_the_image_runs_hardened_as_an_arbitrary_user(engine: ContainerEngine, image: str) -> None:
    """Without HOME, capabilities, a writable root file system, and an entry for the user in /etc/passwd."""
    port = find_free_port()
    named = ("CONFIDE_HOST=0.0.0.0", "CONFIDE_BEHIND_TLS_PROXY=true", "CONFIDE_TRUSTED_PROXIES=192.0.2.1")
    settings = [part for setting in (*named, "CONFIDE_WORKERS=2") for part in ("--env", setting)]
    with engine.run_container(*HARDENED, *settings, "--publish", f"127.0.0.1:{port}:8080", image) as container:
        engine.wait_until_healthy(container)
        log = engine.docker("logs", container)
        assert "warning" not in log
        service = Service(port)
        service.add_admin(log)
        service.save({"host": "fis.example"})
        assert service.request("GET", "/health/ready")["status"] == "ok"
        assert engine.docker("exec", container, "id", "--user") == str(ARBITRARY_USER)
        assert "up to date" in engine.docker("exec", container, "env", "--unset", "HOME", "confide", "migrate")
        engine.docker("stop", container)
        assert engine.inspect(container, ".State.ExitCode") == "0"


def test_the_health_check_follows_the_port_and_tls(engine: ContainerEngine, image: str, tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-subj",
         "/CN=confide.example", "-days", "2"], check=True, cwd=tmp_path, capture_output=True,
    )  # fmt: skip
    tmp_path.chmod(0o755)
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    port = find_free_port()
    settings = (
        "CONFIDE_HOST=0.0.0.0",
        "CONFIDE_PORT=9443",
        "CONFIDE_TLS_CERT=/tls/cert.pem",
        "CONFIDE_TLS_KEY=/tls/key.pem",
    )
    options = [part for setting in settings for part in ("--env", setting)]
    mounts = ("--volume", f"{tmp_path}:/tls:ro", "--publish", f"127.0.0.1:{port}:9443")
    with engine.run_container(*options, *mounts, image) as container:
        engine.wait_until_healthy(container)
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        context.check_hostname = False
        reply = httpx2.get(f"https://127.0.0.1:{port}/health/ready", verify=context, timeout=CLIENT_SECONDS)
        assert reply.json()["status"] == "ok"
        # The port of a stopped process is open, but gives no answer.
        engine.docker("kill", "--signal", "STOP", container)
        wait_until(lambda: engine.inspect(container, ".State.Health.Status") == "unhealthy", "the check fails")


def test_a_volume_of_the_previous_release_is_upgraded(engine: ContainerEngine, image: str, tmp_path: Path) -> None:
    volume = engine.docker("volume", "create")
    try:
        fill_volume(engine, image, volume, BEFORE)
        port = find_free_port()
        settings = ("--env", "CONFIDE_HOST=0.0.0.0", "--env", "CONFIDE_BEHIND_TLS_PROXY=true")
        publish = ("--volume", f"{volume}:{DATA}", "--publish", f"127.0.0.1:{port}:8080")
        with engine.run_container(*settings, *publish, image) as container:
            engine.wait_until_healthy(container)
            service = Service(port)
            login = {"login": "root", "password": "correct horse battery"}
            service.token = service.request("POST", "/login", json=login)["token"]
            params = {"tenant": "acme", "integration_type": "crm"}
            found = service.request("GET", "/config", params=params)
            assert found["configuration"]["host"] == "crm.acme.example"
            assert service.request("GET", "/audit/verify")["ok"]
    finally:
        engine.docker("volume", "rm", "--force", volume)


def fill_volume(engine: ContainerEngine, image: str, volume: str, source: Path) -> None:
    """Copy the store of an earlier release into a volume, with the owner and mode of that release."""
    names = " ".join(path.name for path in source.iterdir() if path.name in ("confide.db", "master.keys"))
    script = f"cp {names} {DATA} && chown -R 10001:10001 {DATA} && chmod 0700 {DATA} && chmod 0600 {DATA}/*"
    mounts = ("--volume", f"{volume}:{DATA}", "--volume", f"{source}:/source:ro", "--workdir", "/source")
    engine.docker("run", "--rm", "--user", "0", *mounts, image, "sh", "-c", script)


def test_a_volume_of_another_user_gets_a_sentence_that_names_the_file(engine: ContainerEngine, image: str) -> None:
    volume = engine.docker("volume", "create")
    try:
        fill_volume(engine, image, volume, BEFORE)
        printed = engine.docker(
            "run", "--rm", "--user", f"{ARBITRARY_USER}:{ARBITRARY_USER}", "--volume", f"{volume}:{DATA}", image,
            is_checked=False,
        )  # fmt: skip
        assert DATA in printed
        assert "Traceback" not in printed
    finally:
        engine.docker("volume", "rm", "--force", volume)
