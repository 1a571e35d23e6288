"""A PostgreSQL cluster on loopback, started with the files of `ops/postgresql-ha` from Debian's packages.

Three Patroni nodes with synchronous replication, one etcd, HAProxy in front of the leader, and PgBouncer in session
mode in front of HAProxy.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from support.ports import find_free_port
from support.waiting import MAX_WAIT_SECONDS, wait_until

FILES = Path(__file__).parents[2] / "ops" / "postgresql-ha"
NODES = ("db1", "db2", "db3")
ADDRESSES = ("multi-host", "haproxy", "pgbouncer")
BINARIES = Path("/usr/lib/postgresql/15/bin")
# Another Patroni than that of the distribution.
PATRONI = "CONFIDE_TEST_PATRONI"
PROGRAMS = {
    "patroni": Path(os.environ.get(PATRONI, "/usr/bin/patroni")),
    "etcd-server": Path("/usr/bin/etcd"),
    "haproxy": Path("/usr/sbin/haproxy"),
    "pgbouncer": Path("/usr/sbin/pgbouncer"),
    "postgresql-15": BINARIES / "postgres",
}
# Short times, so that a failover takes 10 s instead of 30. Patroni requires ttl >= loop_wait + 2 x retry_timeout.
QUICK = {"ttl": 8, "loop_wait": 2, "retry_timeout": 3}
REST_SECONDS = 2.0
MAX_REPAIR_SECONDS = 90.0
# A replica that is further behind does not count as a replica.
MAX_LAG_BYTES = 200_000

# Ends what runs in a folder, and removes the folder, when the pipe to this process closes. A killed test closes it too.
GUARD = """
import os, pathlib, shutil, signal, sys
folder = sys.argv[1]
sys.stdin.read()
found = True
while found:
    found = False
    for link in pathlib.Path("/proc").glob("[0-9]*/cwd"):
        try:
            if (os.readlink(link) + "/").startswith(folder + "/"):
                os.kill(int(link.parent.name), signal.SIGKILL)
                found = True
        except OSError:
            pass
shutil.rmtree(folder, ignore_errors=True)
"""


def find_missing_packages() -> list[str]:
    """Return the Debian packages to install before a cluster can start."""
    return [package for package, program in PROGRAMS.items() if not program.exists()]


def read_patroni_version() -> str:
    """Return the version of Patroni, such as `3.0.2`."""
    done = subprocess.run([PROGRAMS["patroni"], "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def keeps_leader_lock() -> bool:
    """Return whether Patroni lets a leader that was replaced not take the leader lock back, as it does since 3.0.3."""
    return tuple(int(part) for part in read_patroni_version().split(".")[:3]) >= (3, 0, 3)


def require_packages() -> None:
    """Skip the test if a program is missing. In CI, fail it."""
    if missing := find_missing_packages():
        sentence = f"apt-get install --no-install-recommends {' '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)


@dataclass(frozen=True)
class Member:
    """One node as Patroni's REST API describes it."""

    name: str
    role: str
    state: str
    timeline: int | None
    lag: int | None

    @property
    def is_leader(self) -> bool:
        return self.role in ("leader", "master") and self.state == "running"


@dataclass(frozen=True)
class ProcessId:
    """A process ID with its start time, because the kernel reuses IDs."""

    pid: int
    started_at: str

    def is_running(self) -> bool:
        return _read_start_time(self.pid) == self.started_at


class PatroniCluster:
    """A running cluster. At the end, every process that it started ends."""

    def __init__(self) -> None:
        # A folder of pytest would be closed to the unprivileged user.
        self.folder = Path(tempfile.mkdtemp(prefix="confide-cluster-"))
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        self.ports = {name: find_free_port() for name in NODES}
        self.rest_ports = {name: find_free_port() for name in NODES}
        self._etcd_port, self._etcd_peer_port = find_free_port(), find_free_port()
        self.haproxy_port, self.pgbouncer_port = find_free_port(), find_free_port()
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._guard = start_guard(self.folder)

    def build_url(self, address: str, database: str = "confide") -> str:
        """Return the URL of a database through one of `ADDRESSES`, as in `confide.env`."""
        ports = self.list_ports(address)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return build_url(hosts, database)

    def list_ports(self, address: str) -> list[int]:
        if address == "multi-host":
            return list(self.ports.values())
        return [self.haproxy_port if address == "haproxy" else self.pgbouncer_port]

    def start(self) -> None:
        """Start everything. Return once the cluster has a leader and two replicas, one of them synchronous."""
        self.start_etcd()
        self.start_node(NODES[0])
        self._wait(lambda: self.find_leader() == NODES[0], "the first node is the leader")
        self.configure(**QUICK)
        for name in NODES[1:]:
            self.start_node(name)
        self.wait_until_whole()
        self._run_psql("-f", str(FILES / "confide.sql"))
        self._start_haproxy()
        self._start_pgbouncer()
        self._wait(self._is_reachable, "PgBouncer reaches the leader")

    def create_database(self, name: str) -> None:
        self._run_psql("-c", f"CREATE DATABASE {name} OWNER confide")

    def stop(self) -> None:
        """Kill every process of the cluster, in any state."""
        found = [process for name in self._started for process in self._list_processes(name)]
        _signal_all(found, signal.SIGKILL)
        for process in self._started.values():
            process.wait(MAX_WAIT_SECONDS)
        wait_until(lambda: not any(process.is_running() for process in found), "the cluster has ended")

    def remove(self) -> None:
        """Remove the files of a cluster that has ended."""
        self._guard.communicate(timeout=MAX_WAIT_SECONDS)

    # Faults

    def kill(self, name: str) -> None:
        """Kill Patroni and PostgreSQL of a node at one instant."""
        _signal_all(self._list_processes(name), signal.SIGSTOP)
        # Look again: a process may have started another one before it stopped.
        found = self._list_processes(name)
        _signal_all(found, signal.SIGKILL)
        self._started[name].wait(MAX_WAIT_SECONDS)
        wait_until(lambda: not any(process.is_running() for process in found), "the node has ended")

    def freeze(self, name: str) -> None:
        """Stop all processes of a node without ending them, as a virtual machine that is paused."""
        _signal_all(self._list_processes(name), signal.SIGSTOP)

    def freeze_patroni(self, name: str) -> None:
        """Stop Patroni alone. PostgreSQL of that node goes on, and believes that it still is the leader."""
        _signal_all(_identify(_list_descendants(self._started[name].pid)), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        _signal_all(self._list_processes(name), signal.SIGCONT)

    def switch_over(self, leader: str) -> None:
        """Let another node become the leader, as an operator would before maintenance."""
        answer = self._request("POST", f"{self._rest_url(leader)}/switchover", json={"leader": leader}, seconds=60.0)
        assert answer is not None, "no response to the switchover"
        assert answer.status_code in (200, 202), answer.text

    def freeze_replication(self, leader: str) -> None:
        """Stop the processes of the leader that send commits to the replicas."""
        senders = [one for one in self._list_processes(leader) if b"walsender" in _read_command(one.pid)]
        assert senders, "the leader has no replica"
        _signal_all(senders, signal.SIGSTOP)

    def start_etcd(self) -> None:
        listen, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._etcd_peer_port))
        own = {
            "ETCD_DATA_DIR": str(self.folder / "etcd"),
            "ETCD_LISTEN_CLIENT_URLS": listen,
            "ETCD_ADVERTISE_CLIENT_URLS": listen,
            "ETCD_LISTEN_PEER_URLS": peer,
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer,
            # One member is enough on one machine.
            "ETCD_INITIAL_CLUSTER": f"db1={peer}",
        }
        self._launch("etcd", PROGRAMS["etcd-server"], env=_read_env_for("etcd.env", own))
        self._wait(lambda: self._request("GET", f"{listen}/health") is not None, "etcd answers")

    def stop_etcd(self) -> None:
        self._started["etcd"].terminate()
        self._started["etcd"].wait(MAX_WAIT_SECONDS)

    def start_node(self, name: str) -> None:
        settings = yaml.safe_load((FILES / "patroni.yml").read_text())
        settings["postgresql"] |= {
            "data_dir": str(self.folder / name),
            "pgpass": str(self.folder / f"{name}.pgpass"),
            "parameters": {"unix_socket_directories": str(self.folder)},
        }
        file = self._write(f"{name}.yml", yaml.safe_dump(settings))
        address, rest = f"127.0.0.1:{self.ports[name]}", f"127.0.0.1:{self.rest_ports[name]}"
        own = {
            "PATRONI_NAME": name,
            "PATRONI_ETCD3_HOSTS": f"127.0.0.1:{self._etcd_port}",
            "PATRONI_RESTAPI_LISTEN": rest,
            "PATRONI_RESTAPI_CONNECT_ADDRESS": rest,
            "PATRONI_POSTGRESQL_LISTEN": address,
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": address,
        }
        self._launch(name, PROGRAMS["patroni"], file, env=_read_env_for("patroni.env", own))

    def configure(self, **settings: Any) -> None:
        """Change Patroni's settings, as `patronictl edit-config` does."""
        leader = self.require_leader()
        answer = self._request("PATCH", f"{self._rest_url(leader)}/config", json=settings)
        assert answer is not None, "no response to the settings"
        assert answer.status_code == 200, answer.text

    # State

    def list_members(self) -> list[Member]:
        """List the nodes as one of them sees the cluster. Empty if no node answers."""
        for name in NODES:
            answer = self._request("GET", f"{self._rest_url(name)}/cluster")
            if answer is not None and answer.status_code == 200:
                return [
                    Member(one["name"], one["role"], one["state"], one.get("timeline"), _parse_lag(one.get("lag")))
                    for one in answer.json()["members"]
                ]
        return []

    def find_leader(self) -> str | None:
        """Return the node that accepts writes: Patroni confirms that it holds the leader lock."""
        for name in NODES:
            answer = self._request("OPTIONS", f"{self._rest_url(name)}/primary")
            if answer is not None and answer.status_code == 200:
                return name
        return None

    def require_leader(self) -> str:
        leader = self.find_leader()
        assert leader is not None, f"the cluster has no leader: {self.list_members()}"
        return leader

    def is_whole(self, *, is_synchronous: bool = True) -> bool:
        """Return whether there is one leader, and two running replicas follow its timeline."""
        members = self.list_members()
        leaders = [one for one in members if one.is_leader]
        if len(leaders) != 1 or len(members) != len(NODES):
            return False
        replicas = [one for one in members if not one.is_leader]
        if is_synchronous and not self.has_synchronous_replica():
            return False
        return all(
            one.state in ("running", "streaming")
            and one.timeline == leaders[0].timeline
            and one.lag is not None
            and one.lag < MAX_LAG_BYTES
            for one in replicas
        )

    def has_synchronous_replica(self) -> bool:
        return any(one.role == "sync_standby" for one in self.list_members())

    def wait_until_whole(self, *, is_synchronous: bool = True) -> None:
        condition = "the cluster is whole"
        self._wait(lambda: self.is_whole(is_synchronous=is_synchronous), condition, max_seconds=MAX_REPAIR_SECONDS)

    def _wait(self, condition: Callable[[], bool], what: str, *, max_seconds: float = MAX_WAIT_SECONDS) -> None:
        """Wait for a condition. If it does not come, or a program ends, show the logs."""

        def is_over() -> bool:
            return any(process.poll() is not None for process in self._started.values()) or condition()

        try:
            wait_until(is_over, what, max_seconds=max_seconds)
            assert condition(), f"{what}: a program ended"
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.list_members()}\n{self._read_logs()}") from None

    def _is_reachable(self) -> bool:
        return self._try_psql(self.pgbouncer_port) and self._try_psql(self.haproxy_port)

    # Processes

    def _start_haproxy(self) -> None:
        own = {"PRIMARY_BIND": f"127.0.0.1:{self.haproxy_port}"}
        for name in NODES:
            own[f"{name.upper()}_POSTGRESQL"] = f"127.0.0.1:{self.ports[name]}"
            own[f"{name.upper()}_REST_PORT"] = str(self.rest_ports[name])
        env = _read_env_for("haproxy.env", own)
        self._launch(
            "haproxy",
            PROGRAMS["haproxy"],
            "-db",
            "-f",
            self._write("haproxy.cfg", (FILES / "haproxy.cfg").read_text()),
            env=env,
        )

    def _start_pgbouncer(self) -> None:
        text = (FILES / "pgbouncer.ini").read_text()
        for example, own in {
            "port=5000": f"port={self.haproxy_port}",
            "listen_port = 6432": f"listen_port = {self.pgbouncer_port}",
            "/etc/pgbouncer/userlist.txt": str(self._write("userlist.txt", (FILES / "userlist.txt").read_text())),
        }.items():
            assert example in text, example
            text = text.replace(example, own)
        file = self._write("pgbouncer.ini", text)
        self._launch("pgbouncer", PROGRAMS["pgbouncer"], file)

    def _launch(self, name: str, *command: Path | str, env: dict[str, str] | None = None) -> None:
        account = self._account
        options: dict[str, Any] = {} if account is None else {"user": account.pw_uid, "group": account.pw_gid}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.folder,
                env={"PATH": f"{BINARIES}:/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )

    def _list_processes(self, name: str) -> list[ProcessId]:
        """List the processes of a program. For a node also those of PostgreSQL, which Patroni detaches."""
        roots = []
        if (process := self._started[name]).poll() is None:
            roots.append(process.pid)
        if name in NODES and (postmaster := self._find_postmaster(name)) is not None:
            roots.append(postmaster)
        return _identify(pid for root in roots for pid in _list_descendants(root))

    def _find_postmaster(self, name: str) -> int | None:
        folder = self.folder / name
        with suppress(OSError, ValueError, IndexError):
            pid = int((folder / "postmaster.pid").read_text().split()[0])
            if str(folder).encode() in _read_command(pid):
                return pid
        return None

    def _run_psql(self, *args: str) -> None:
        leader = self.require_leader()
        done = _run_psql(self.ports[leader], "postgres", read_env("patroni.env")["PATRONI_SUPERUSER_PASSWORD"], *args)
        assert done.returncode == 0, done.stderr

    def _try_psql(self, port: int) -> bool:
        return _run_psql(port, "confide", read_password(), "-c", "SELECT 1", database="confide").returncode == 0

    def _rest_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.rest_ports[name]}"

    def _request(self, method: str, url: str, *, json: Any = None, seconds: float = REST_SECONDS) -> Any:
        """Send a request. Returns None without a response."""
        try:
            return httpx2.request(method, url, json=json, timeout=seconds)
        except httpx2.HTTPError:
            return None

    def _write(self, name: str, text: str) -> Path:
        """Write a file that the unprivileged user can read, whatever the mask of this process is."""
        file = self.folder / name
        file.write_text(text)
        file.chmod(0o644)
        return file

    def _read_logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-1_500:]}" for path in sorted(self.folder.glob("*.log")))


@contextmanager
def run_patroni_cluster(logs: Path) -> Iterator[PatroniCluster]:
    """Run a cluster. At the end, kill all its processes, move its logs to a folder and remove its other files."""
    cluster = PatroniCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        logs.mkdir(parents=True, exist_ok=True)
        for log in cluster.folder.glob("*.log"):
            shutil.copy(log, logs)
        cluster.remove()


def start_guard(folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that ends what still runs in a folder when this process ends, even by SIGKILL."""
    # In its own session: a signal to the group of the test must not end it.
    return subprocess.Popen(
        [sys.executable, "-c", GUARD, str(folder)], cwd="/", stdin=subprocess.PIPE, start_new_session=True
    )


def build_url(hosts: str, database: str) -> str:
    """Build a database URL. Several hosts get the query of the multi-host address in `confide.env`."""
    query = "?target_session_attrs=read-write" if "," in hosts else ""
    return f"postgresql://confide:{read_password()}@{hosts}/{database}{query}"


def read_password() -> str:
    """Read the password of the role that the services use."""
    return (FILES / "userlist.txt").read_text().split()[1].strip('"')


def read_env(name: str) -> dict[str, str]:
    """Read an environment file of the example."""
    return dict(re.findall(r"(?m)^([A-Z0-9_]+)=(.*)$", (FILES / name).read_text()))


def _read_env_for(name: str, own: dict[str, str]) -> dict[str, str]:
    """Read an environment file of the example, with the addresses of this cluster."""
    found = read_env(name)
    unknown = own.keys() - found.keys()
    assert not unknown, f"{name} does not have {unknown}"
    found |= own
    assert not any("example.com" in value for value in found.values()), found
    return found


def _run_psql(
    port: int, user: str, password: str, *args: str, database: str = "postgres"
) -> subprocess.CompletedProcess[str]:
    command = [
        str(BINARIES / "psql"),
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-U",
        user,
    ]
    env = {"PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [*command, "-d", database, *args], capture_output=True, text=True, env=env, timeout=60, check=False
    )


def _parse_lag(lag: object) -> int | None:
    return lag if isinstance(lag, int) else None


def _signal_all(processes: list[ProcessId], number: int) -> None:
    for process in processes:
        if process.is_running():
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _identify(pids: Iterable[int]) -> list[ProcessId]:
    """Return the processes that run, each once."""
    found = ((pid, _read_start_time(pid)) for pid in dict.fromkeys(pids))
    return [ProcessId(pid, started_at) for pid, started_at in found if started_at is not None]


def _list_descendants(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += _list_descendants(int(child))
    return found


def _read_start_time(pid: int) -> str | None:
    """Read when a process started. None if it has ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "XZ" else fields[19]
    return None


def _read_command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
