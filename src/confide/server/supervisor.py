"""Start and stop the worker processes."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from confide import __version__
from confide.crypto.master_keys import FILE_NAME
from confide.postgresql_client.address import parse_address
from confide.reads.fast_path import ReadingProtocol
from confide.server.limits import FileLimit, compute_limits, raise_file_limit
from confide.server.preparation import Preparation, prepare
from confide.server.settings import Settings
from confide.server.worker import build_application
from confide.telemetry import logs
from confide.telemetry.metrics_files import create_metrics_folder
from confide.web.connections import Connections
from confide.web.listener import ServingLoop

KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 5
BACKLOG = 2_048
# A worker that does not answer a ping for so long is hung. Before its first answer, it imports the code.
MAX_SILENT_SECONDS, MAX_START_SECONDS = 60.0, 180.0
# Between two replacements. The pause doubles while workers end soon after their start.
MIN_RESTART_SECONDS, MAX_RESTART_SECONDS = 0.5, 30.0
ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


_log = logging.getLogger("confide")


class PortTaken(Exception):
    """The port is in use, or the process has no permission to bind it."""


class StartFailed(Exception):
    """A process ended before it could serve."""


@dataclass(slots=True)
class _Watched:
    """A worker, its start, the ping that it has not answered, and whether it ever answered one."""

    process: Process
    started_at: float
    ping_at: float | None = None
    has_answered: bool = False

    def is_hung(self, now: float) -> bool:
        """Send a ping without waiting for its answer. Return whether the last one is unanswered for too long."""
        try:
            while self.process.parent_conn.poll(0):
                self.process.parent_conn.recv()
                self.ping_at, self.has_answered = None, True
            if self.ping_at is None:
                self.process.parent_conn.send(b"ping")
                self.ping_at = now
        except (OSError, EOFError):
            return False  # it is ending, and the next check finds it dead
        return now - self.ping_at > (MAX_SILENT_SECONDS if self.has_answered else MAX_START_SECONDS)


class _ServerConfig(uvicorn.Config):
    """The configuration of uvicorn, with an event loop that counts connections."""

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        return functools.partial(ServingLoop, self._find_connections)

    def _find_connections(self) -> Connections:
        # Behind a proxy, uvicorn's middleware wraps the application.
        application: Any = getattr(self.loaded_app, "app", self.loaded_app)
        connections: Connections = application.connections
        return connections


class Supervisor(Multiprocess):
    """Starts and restarts the workers. It also ends if a worker cannot start, which is not a normal end.

    A slow worker is not a dead one: on a busy machine, a start and an answer take long. The supervisor never waits for
    an answer, so that it handles signals meanwhile.
    """

    is_stop_requested = False

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._watched: dict[Process, _Watched] = {}
        self._pause_seconds = MIN_RESTART_SECONDS
        self._restart_at = 0.0

    def keep_subprocess_alive(self) -> None:
        """Replace workers that ended or hang, with a growing pause if they do so soon after their start."""
        if self.should_exit.is_set():
            return  # Ctrl+C ends the workers as well
        for index, process in enumerate(self.processes):
            now = time.monotonic()
            watched = self._watched.setdefault(process, _Watched(process, now))
            if process.process.is_alive():
                if not watched.is_hung(now):
                    continue
                _log.error("worker_hung pid=%s silent_seconds=%d", process.pid, now - (watched.ping_at or now))
                process.kill()
                process.join()
            if process.exitcode == STARTUP_FAILURE:
                self.should_exit.set()
                return
            if now < self._restart_at:
                continue
            if now - watched.started_at > MAX_RESTART_SECONDS:
                self._pause_seconds = MIN_RESTART_SECONDS
            _log.warning("worker_replaced pid=%s exit_code=%s", process.pid, process.exitcode)
            self._restart_at = now + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, MAX_RESTART_SECONDS)
            del self._watched[process]
            self.processes[index] = Process(self.config, self.sockets)
            self.processes[index].start()

    def handle_int(self) -> None:
        self.is_stop_requested = True
        super().handle_int()

    def handle_term(self) -> None:
        self.is_stop_requested = True
        super().handle_term()


def serve(settings: Settings, *, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish running requests. Raises the errors of `prepare`."""
    logs.configure()
    # Until the server installs its own handler, there are no requests to finish.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    files = raise_file_limit()
    listener = _bind_socket(settings)
    try:
        preparation = asyncio.run(prepare(settings))
        setup_token = "" if preparation.has_had_user else secrets.token_urlsafe(24)
        for line in format_start_lines(
            settings, preparation, port=listener.getsockname()[1], setup_token=setup_token, files=files
        ):
            say(line)
        with ExitStack() as stack:
            metrics_folder = stack.enter_context(create_metrics_folder(settings.data)) if settings.workers > 1 else None
            _run(_build_server_config(settings, setup_token, metrics_folder), listener)
    finally:
        listener.close()


def build_worker_app(settings: Settings, setup_token: str, metrics_folder: Path | None) -> object:
    """Build the application of a worker process."""
    logs.configure()
    app = build_application(settings, setup_token, metrics_folder)
    if not settings.trusted_proxies:
        return app
    return ProxyHeadersMiddleware(app, trusted_hosts=list(settings.trusted_proxies))  # type: ignore[arg-type]


def application() -> object:
    """Build the ASGI application for another server, from environment variables: one process, with lifespan.

    The address is unknown here, so adding the first user needs the setup token, which is logged.
    """
    logs.configure()
    settings = Settings(behind_tls_proxy=True)
    with ThreadPoolExecutor(1) as executor:  # this thread already runs the server's event loop
        preparation = executor.submit(asyncio.run, prepare(settings)).result()
    setup_token = "" if preparation.has_had_user else secrets.token_urlsafe(24)
    _log.info(
        "service_started version=%s database=%r epoch=%s durability=%r",
        __version__,
        _describe_database(settings),
        preparation.database.epoch.id,
        preparation.database.durability,
    )
    if settings.has_unnamed_proxy:
        _log.warning("proxy_untrusted setting=CONFIDE_TRUSTED_PROXIES")
    if setup_token:
        _log.info("first_user_missing request='POST /user' setup_token=%s", setup_token)
    return build_worker_app(settings, setup_token, None)


def format_start_lines(
    settings: Settings, preparation: Preparation, *, port: int, setup_token: str, files: FileLimit
) -> list[str]:
    """Format the start message: address, database, durability, limits, and first steps."""
    scheme = "https" if settings.has_tls else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{scheme}://{host}:{port}"
    address = url if settings.host not in ALL_ADDRESSES else f"{scheme}://localhost:{port}"
    env = f", APP_ENV={settings.app_env}" if settings.app_env else ""
    unsafe = "UNSAFE, acknowledged saves can be lost: " if preparation.database.is_unsafe else ""
    lines = [
        f"Confide {__version__} at {url} ({settings.workers} worker{'s' if settings.workers > 1 else ''}{env})",
        f"  database    {_describe_database(settings)}, epoch {preparation.database.epoch.id}",
        f"  durability  {unsafe}{preparation.database.durability}",
        _format_limits(settings, files),
    ]
    if preparation.created_master_keys is not None:
        lines.append(
            f"  keys        created {preparation.created_master_keys}: copy it to a safe place now. Without it, configs"
            " cannot be decrypted again."
        )
    if preparation.database.is_new_epoch:
        lines.append(
            "  restored    the database was moved or restored: a new epoch has begun, and all sessions have ended"
        )
    if preparation.database.has_lost_commits:
        lines.append(
            "  lost        the database lacks commits that the checkpoint file names: a new epoch has begun, and all"
            " sessions have ended"
        )
    return [
        *lines,
        *_format_permission_warnings(settings),
        *_format_proxy_warning(settings),
        *_format_first_steps(preparation, url=address, setup_token=setup_token),
    ]


def _format_first_steps(preparation: Preparation, *, url: str, setup_token: str) -> list[str]:
    if preparation.has_had_user:
        return [f"  first       log in: confide login --url {url}   (API: {url}/docs)"]
    bearer = f" -H 'Authorization: Bearer {setup_token}'"
    body = """'{"login": "admin", "password": "…"}'"""
    return [
        "  first       add the first user, who becomes an admin, with the setup token:",
        f"              curl {url}/user{bearer} -H 'Content-Type: application/json' -d {body}",
    ]


def _format_permission_warnings(settings: Settings) -> list[str]:
    """Warn of existing files that other users of this machine can read."""
    paths = [path for path in (settings.data, settings.data / FILE_NAME) if path.exists()]
    return [
        f"  warning     other users can read {path}: chmod go= {path}" for path in paths if _is_readable_by_others(path)
    ]


def _format_limits(settings: Settings, files: FileLimit) -> str:
    limits, raised = compute_limits(settings, files=files.now), ""
    if files.now != files.before:
        raised = f", raised from {files.before:,}"
    return (
        f"  limits      {files.now:,} open files{raised}; per worker {limits.connections.connections:,} connections,"
        f" {limits.connections.connections_of_an_address:,} from one address, {limits.streams.streams:,} watchers,"
        f" {limits.streams.streams_of_a_token:,} of one token"
    )


def _format_proxy_warning(settings: Settings) -> list[str]:
    if not settings.has_unnamed_proxy:
        return []
    hint = "name its addresses with --trusted-proxies. Until then, limits for each address are off."
    return [f"  warning     the proxy is not trusted: {hint}"]


def _is_readable_by_others(path: Path) -> bool:
    """Return whether users other than the one of this process can read a file, and this process can change that.

    Container engines give a volume to an arbitrary user by its group, which is then root or one that only the pod has.
    """
    status = path.stat()
    has_own_group = status.st_gid == 0 or status.st_uid != os.geteuid()
    return bool(status.st_mode & (0o007 if has_own_group else 0o077))


def _describe_database(settings: Settings) -> str:
    url = settings.database_url
    if url.startswith("sqlite:"):
        return f"SQLite {url.removeprefix('sqlite:///')}"
    address = parse_address(url)
    hosts = ", ".join(host.name for host in address.hosts)
    return f"PostgreSQL {address.database} on {hosts or 'localhost'}"


def _bind_socket(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        hint = "Choose another with --port or CONFIDE_PORT."
        raise PortTaken(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. {hint}") from error
    listener.set_inheritable(True)
    return listener


def _build_server_config(settings: Settings, setup_token: str, metrics_folder: Path | None) -> uvicorn.Config:
    return _ServerConfig(
        functools.partial(build_worker_app, settings, setup_token, metrics_folder),
        factory=True,
        http=ReadingProtocol,
        ws="none",
        lifespan="on",
        workers=settings.workers,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_worker_healthcheck=int(MAX_START_SECONDS),  # of a replacement after SIGHUP
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _run(config: uvicorn.Config, listener: socket.socket) -> None:
    if config.workers > 1:
        supervisor = Supervisor(config, sockets=[listener])
        supervisor.run()
        if not supervisor.is_stop_requested:
            raise StartFailed("A worker could not start. See the log for the reason.")
        return
    server = uvicorn.Server(config)
    # These handlers keep a signal that arrives before the server installs its own. When the server is done, it raises
    # the signal again, and they ignore it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    server.run(sockets=[listener])
    if not server.started:
        raise StartFailed("The service could not start. See the log for the reason.")
