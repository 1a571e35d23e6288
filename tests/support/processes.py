"""`confide serve` as people start it: real processes, ended by their own group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from support.app import PASSWORD
from support.ports import find_free_port

START_SECONDS = 30.0
FAULTY_SERVICE = (str(Path(__file__).with_name("faulty_service.py")),)


def build_environment(**more: str) -> dict[str, str]:
    """The environment of a fresh login: nothing of Confide's but what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONFIDE_", "APP_"))}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200", **more}


def run_confide(
    *args: str, cwd: Path, stdin: str = "", env: Mapping[str, str] | None = None, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "confide", *args],
        cwd=cwd,
        input=stdin,
        env=build_environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


class Service:
    """One running service with its data folder, log and port."""

    def __init__(
        self,
        folder: Path,
        *args: str,
        database: str | None = None,
        program: tuple[str, ...] = ("-m", "confide"),
        env: Mapping[str, str] | None = None,
        unsafe: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "service.log"
        self._env = build_environment(**(env or {}))
        if database is not None:
            self._env["CONFIDE_DATABASE"] = database
        if unsafe:
            self._env["CONFIDE_UNSAFE_DURABILITY"] = "true"
        self._command = [sys.executable, *program, "serve", "--port", str(self.port), *args]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "confide-data"

    def start(self, *, is_ready: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._env, stdout=log, stderr=log, start_new_session=True
            )
        if is_ready:
            self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                if httpx2.get(f"{self.url}/health/ready", timeout=1).status_code == 200:
                    return
            except httpx2.HTTPError:
                time.sleep(0.02)
        raise AssertionError(f"the service does not answer:\n{self.log.read_text()[-3_000:]}")

    def stop(self) -> int:
        """End it as an operator would; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.process = None
        return code

    def kill(self) -> None:
        """`kill -9` of the parent and every worker at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self.process = None

    def client(self, token: str | None = None) -> httpx2.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=10)

    def async_client(self, token: str) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=100, max_keepalive_connections=100)
        headers = {"Authorization": f"Bearer {token}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=10, limits=limits)

    def add_admin(self) -> str:
        """Make the first user and log it in; returns the token."""
        with self.client() as client:
            client.post("/user", json={"login": "root", "password": PASSWORD}).raise_for_status()
        return self.login()

    admin = add_admin  # the earlier name

    def login(self, login: str = "root", password: str = PASSWORD) -> str:
        with self.client() as client:
            answer: dict[str, Any] = client.post("/login", json={"login": login, "password": password}).json()
            return str(answer["token"])


@contextmanager
def run_service(folder: Path, *args: str, **more: Any) -> Iterator[Service]:
    service = Service(folder, *args, **more)
    service.start()
    try:
        yield service
    except BaseException:
        print(f"the service's log:\n{service.log.read_text()[-6_000:]}")
        raise
    finally:
        if service.process is not None:
            service.kill()


# Earlier names, until all tests use the new ones.
environment = build_environment
confide = run_confide
running = run_service
