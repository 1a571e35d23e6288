"""PgBouncer of the distribution, in front of a server."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from support.ports import find_free_port
from support.postgres import PostgresServer
from support.waiting import MAX_WAIT_SECONDS, wait_until


class PgBouncer:
    """A pooler on a free port of loopback, with its defaults except for the pool mode and `settings`."""

    def __init__(self, server: PostgresServer, *, mode: str, settings: str = "") -> None:
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        if not Path(program).exists():
            pytest.fail("PgBouncer is missing: apt-get install pgbouncer")
        self.port = find_free_port()
        self._server = server
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix="confide-pgbouncer-"))
        self._user = "nobody" if os.geteuid() == 0 else None
        (self._folder / "users").write_text('"confide" ""\n')
        self._write_config(mode)
        for path in (self._folder, *self._folder.iterdir()):
            if self._user is not None:
                account = pwd.getpwnam(self._user)
                os.chown(path, account.pw_uid, account.pw_gid)
        self._process = subprocess.Popen(
            [program, self._config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as()
        )
        wait_until(lambda: self._has_ended() or self._is_listening(), "PgBouncer listens")
        assert not self._has_ended(), (self._folder / "log").read_text()

    @property
    def _config(self) -> Path:
        return self._folder / "pgbouncer.ini"

    def build_url(self, url: str) -> str:
        """Return the URL of a database of the server, reached through PgBouncer."""
        return self._server.build_proxied_url(url, self.port)

    def change_mode(self, mode: str) -> None:
        """Change the pool mode while clients are connected, as an operator does."""
        self._write_config(mode)
        self._process.send_signal(signal.SIGHUP)

    def remove(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(MAX_WAIT_SECONDS)
        shutil.rmtree(self._folder)

    def _write_config(self, mode: str) -> None:
        self._config.write_text(
            f"""[databases]
* = host={self._server.host} port={self._server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {self._folder / "users"}
logfile = {self._folder / "log"}
pool_mode = {mode}
{self._settings}
"""
        )

    def _is_listening(self) -> bool:
        log = self._folder / "log"
        return log.exists() and "listening on" in log.read_text()

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _as(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        account = pwd.getpwnam(self._user)
        return {"user": account.pw_uid, "group": account.pw_gid}
