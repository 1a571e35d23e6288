"""PostgreSQL as people install it: a cluster of the distribution, with its defaults, and an ordinary role."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.canaries import make_canary
from support.ports import find_free_port
from support.postgres import OwnPostgresServer, find_distribution_binaries, find_memory_folder

ADMINISTRATOR, ROLE = "administrator", "confide"
# Unlike C.UTF-8 it sorts text by language, and most servers have it.
LOCALE = "en_US.UTF-8"
# What a role could have set, each of which would break or slow down a statement of Confide.
HOSTILE = {
    "jit": "on",
    "jit_above_cost": "0",
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "SQL, DMY",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "client_min_messages": "debug5",
    "extra_float_digits": "-15",
    "log_statement": "all",
    "standard_conforming_strings": "off",
    "default_toast_compression": "lz4",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "500",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "1",
    "idle_session_timeout": "500",
    "enable_indexscan": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "row_security": "off",
    "session_replication_role": "replica",
    "synchronous_commit": "local",
    "work_mem": "64kB",
}


class DistributionServer(OwnPostgresServer):
    """A cluster of Debian's `pg_createcluster`. Only its port and its folders are set.

    Databases belong to a role without other rights, which connects over TCP with a password, as the service does.
    In memory, `fsync` does not wait for a disk: dropping a database takes milliseconds instead of seconds.
    """

    def __init__(self, *, is_in_memory: bool = False) -> None:
        folder = find_memory_folder() if is_in_memory else None
        root = Path(tempfile.mkdtemp(prefix="confide-distribution-", dir=folder))
        self._version, self._name = find_distribution_binaries().parent.name, f"confide{secrets.token_hex(4)}"
        self._owner = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        password, port = make_canary("role"), find_free_port()
        super().__init__(
            f"postgresql://{ADMINISTRATOR}:{password}@127.0.0.1:{port}/postgres",
            root=root,
            account=f"{ROLE}:{password}",
        )
        os.chown(root, self._owner.pw_uid, self._owner.pw_gid)
        folders = ("-d", root / "data", "-s", root, "-l", root / "postgres.log")
        self._run("pg_createcluster", *folders, "-p", str(port), "--start-conf", "manual", self._version, self._name)
        self._missing_roles = [
            f"CREATE ROLE {ADMINISTRATOR} SUPERUSER LOGIN PASSWORD '{password}'",
            f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'",
        ]

    def start(self) -> None:
        self._control("start")
        while self._missing_roles:
            self._run_as_superuser(self._missing_roles.pop())

    def kill(self) -> None:
        self._control("--mode", "immediate", "stop")

    def stop(self) -> None:
        self._control("stop")

    def remove(self) -> None:
        self.signal_all(signal.SIGCONT)
        if self._find_pid() is not None:
            self.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def build_proxied_url(self, url: str, port: int) -> str:
        """Return a URL without TLS, because a proxy of the tests reads the words that pass."""
        return super().build_proxied_url(url, port) + "?sslmode=disable"

    def list_files(self) -> list[Path]:
        """List nothing: the same tests search the files of the other server, whose log is shorter."""
        return []

    def new_database(self, *, is_shared: bool = False) -> str:
        return self._create_database(f"OWNER {ROLE}", is_shared=is_shared)

    def create_database(self, options: str) -> str:
        """Create an empty database of the role with other options of CREATE DATABASE, and return its URL."""
        return self._create_database(f"OWNER {ROLE} {options}")

    def new_socket_database(self) -> str:
        """Create an empty database of a role with the name of our user, and return its URL at the Unix socket.

        There the cluster asks the kernel for the name of the user (`peer`), and for no password.
        """
        user = pwd.getpwuid(os.geteuid()).pw_name
        if user != self._owner.pw_name:
            self.execute(f'CREATE ROLE "{user}" LOGIN')
        database = self._create_database(f'OWNER "{user}"').rsplit("/", 1)[1]
        return f"postgresql://{user}@/{database}?host={self.root}&port={self.port}"

    def set_for_database(self, url: str, settings: Mapping[str, str]) -> None:
        """Set the defaults of all later sessions of a database."""
        database = url.rsplit("/", 1)[1]
        self.execute("; ".join(f"ALTER DATABASE {database} SET {name} = '{value}'" for name, value in settings.items()))

    def _find_pid(self) -> int | None:
        try:
            return int((self.root / "data" / "postmaster.pid").read_text().split()[0])
        except FileNotFoundError:
            return None

    def _control(self, *args: str) -> None:
        *options, act = args
        self.signal_all(signal.SIGCONT)
        self._run("pg_ctlcluster", *options, self._version, self._name, act)

    def _run_as_superuser(self, sql: str) -> None:
        self._run("psql", "-q", "-h", self.root, "-p", str(self.port), "-d", "postgres", "-c", sql)

    def _run(self, program: str, *args: str | Path) -> None:
        as_owner: dict[str, Any] = {"user": self._owner.pw_uid, "group": self._owner.pw_gid}
        if os.geteuid() == 0:  # the certificate of the distribution belongs to another group
            as_owner["extra_groups"] = os.getgrouplist(self._owner.pw_name, self._owner.pw_gid)
        else:
            as_owner = {}
        environment = {"PATH": "/usr/bin:/bin", "LANG": find_locale(), "PG_CLUSTER_CONF_ROOT": str(self.root / "etc")}
        done = subprocess.run(
            [program, *args], env=environment, cwd=self.root, capture_output=True, text=True, check=False, **as_owner
        )
        assert done.returncode == 0, f"{program} {' '.join(map(str, args))}: {done.stdout}{done.stderr}"


def find_locale() -> str:
    """Return the locale of the cluster. A machine without it fails in CI, and elsewhere sorts by code point."""
    installed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout.lower()
    if "en_us.utf8" in installed.split():
        return LOCALE
    if os.environ.get("CI"):
        pytest.fail(f"The locale {LOCALE} is missing, and CI must have it: localedef -i en_US -f UTF-8 {LOCALE}")
    return "C.UTF-8"
