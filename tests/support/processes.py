"""Real processes of `confide`, each in its own process group, which always ends with its test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from support.app import PASSWORD
from support.ports import find_free_port
from support.waiting import MAX_WAIT_SECONDS, wait_until

FAULTY_SERVICE = (str(Path(__file__).with_name("faulty_service.py")),)
BYTECODE = Path(__file__).parents[2] / ".make" / "bytecode"
COMMAND_SECONDS = 250.0
GRACE_SECONDS = 30.0
# Longer than any response may take, also on a busy machine.
CLIENT_SECONDS = 60.0


def build_environment(**more: str) -> dict[str, str]:
    """Build the environment of a fresh login, without any variable of Confide, or of the make that runs the tests."""
    foreign = ("CONFIDE_", "APP_", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # Compiling the source takes half the time of a start, so the processes share a cache outside of the source.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "PYTHONPYCACHEPREFIX": str(BYTECODE), "COLUMNS": "200", **more}


def run_confide(
    *args: str, cwd: Path, stdin: str = "", env: Mapping[str, str] | None = None, seconds: float = COMMAND_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "confide", *args]
    with start_process(
        command,
        cwd=cwd,
        env=build_environment(**(env or {})),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        stdout, stderr = process.communicate(stdin, timeout=seconds)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@contextmanager
def start_process(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a process in its own session; at the end, end it and all its children."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        end_process_group(process)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def end_process_group(process: subprocess.Popen[Any], *, grace_seconds: float = GRACE_SECONDS) -> None:
    """End a process that leads a group, and all of the group: SIGTERM, then SIGKILL. Reap the process."""
    send_to_group(process.pid, signal.SIGTERM)
    send_to_group(process.pid, signal.SIGCONT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_seconds)
    send_to_group(process.pid, signal.SIGKILL)
    process.wait(MAX_WAIT_SECONDS)
    wait_until(lambda: not list_group(process.pid), "every process of the group has ended")


def send_to_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def list_group(group: int) -> list[int]:
    """List the processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "XZ":
                found.append(int(path.parent.name))
    return found


def find_workers(supervisor: int) -> list[int]:
    """Find the worker processes, and not the resource tracker of Python."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


class Service:
    """One running service with its data folder, log and port."""

    def __init__(
        self,
        folder: Path,
        *args: str,
        database: str | None = None,
        program: tuple[str, ...] = ("-m", "confide"),
        env: Mapping[str, str] | None = None,
        is_unsafe: bool = True,
        host: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or find_free_port()
        self.url = f"http://{host}:{self.port}"
        self.log = folder / "service.log"
        self._env = build_environment(**(env or {}))
        if database is not None:
            self._env["CONFIDE_DATABASE"] = database
        if is_unsafe:
            self._env["CONFIDE_UNSAFE_DURABILITY"] = "true"
        self._command = [sys.executable, *program, "serve", "--host", host, "--port", str(self.port), *args]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "confide-data"

    def start(self) -> None:
        """Start the service and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the service without waiting for it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Wait until the service answers."""
        try:
            wait_until(lambda: self._has_ended() or self._is_ready(), "the service answers")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-3_000:]}") from None
        assert not self._has_ended(), f"the service ended:\n{self.log.read_text()[-3_000:]}"

    def _has_ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health/ready", timeout=CLIENT_SECONDS).status_code == 200
        except httpx2.HTTPError:
            return False

    def stop(self) -> int:
        """Stop the service as an operator would. Return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(MAX_WAIT_SECONDS)
        self.end()
        return code

    def kill(self) -> None:
        """Send SIGKILL to the supervisor and every worker at once."""
        assert self.process is not None
        send_to_group(self.process.pid, signal.SIGKILL)
        self.end()

    def end(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """End all processes of the service that still run."""
        if self.process is not None:
            end_process_group(self.process, grace_seconds=grace_seconds)
            self.process = None

    def client(self, token: str | None = None) -> httpx2.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=CLIENT_SECONDS)

    def async_client(self, token: str) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=100, max_keepalive_connections=100)
        headers = {"Authorization": f"Bearer {token}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=CLIENT_SECONDS, limits=limits)

    def add_admin(self) -> str:
        """Add the first user and return its token."""
        with self.client() as client:
            client.post("/user", json={"login": "root", "password": PASSWORD}).raise_for_status()
        return self.login()

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
        print(f"log of the service:\n{service.log.read_text()[-6_000:]}")
        raise
    finally:
        service.end()
