"""Starting and ending the processes that serve."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.supervisors import Multiprocess

from confide import __version__
from confide.crypto.master_keys import FILE_NAME
from confide.reads.fast_path import ReadingProtocol
from confide.server.metrics import FOLDER_VARIABLE
from confide.server.preparation import Started, prepare
from confide.server.settings import Settings
from confide.server.worker import build_application
from confide.telemetry import logs

KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 5
BACKLOG = 2_048
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - looked for, not bound


_log = logging.getLogger("confide")


class PortTaken(Exception):
    """Somebody else listens there, or it may not be listened on."""


class StartFailed(Exception):
    """A process ended before it could serve."""


def serve(settings: Settings, *, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished. Raises what `prepare` raises."""
    logs.configure()
    # Told to end before anything is served: there is nothing to finish.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = _bound(settings)
    try:
        started = asyncio.run(prepare(settings))
        setup_token = "" if settings.is_for_this_machine or started.has_had_user else secrets.token_urlsafe(24)
        for line in start_lines(settings, started, port=listener.getsockname()[1], setup_token=setup_token):
            say(line)
        with _counting(settings.data / "metrics" / str(listener.getsockname()[1])):
            _run(_server_config(settings, setup_token), listener)
    finally:
        listener.close()


@contextmanager
def _counting(folder: Path) -> Iterator[None]:
    """Give the workers a folder for what they count, empty at each start and gone at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another service of this data folder counts there
            folder.parent.rmdir()


def worker_app(settings: Settings, setup_token: str) -> object:
    """The application of a worker process, as the server asks for it."""
    logs.configure()
    app = build_application(settings, setup_token)
    if not settings.trusted_proxies:
        return app
    return ProxyHeadersMiddleware(app, trusted_hosts=list(settings.trusted_proxies))  # type: ignore[arg-type]


def application() -> object:
    """The ASGI application for another server, set up by the variables alone: one process, with the lifespan on.

    Where it listens is not known here: so the first user needs the setup token that the log tells.
    """
    logs.configure()
    settings = Settings(behind_tls_proxy=True)
    with ThreadPoolExecutor(1) as outside:  # the server's loop is running already
        started = outside.submit(asyncio.run, prepare(settings)).result()
    setup_token = "" if started.has_had_user else secrets.token_urlsafe(24)
    _log.info(
        "Confide %s: %s, epoch %s, %s", __version__, _store_name(settings), started.home.epoch, started.home.durability
    )
    if setup_token:
        _log.info("there is no user yet: POST /user, once, with Authorization: Bearer %s", setup_token)
    return worker_app(settings, setup_token)


def start_lines(settings: Settings, started: Started, *, port: int, setup_token: str) -> list[str]:
    """What a start says: address, store, durability, and what to do first."""
    scheme = "https" if settings.has_tls else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{scheme}://{host}:{port}"
    reached = url if settings.host not in EVERYWHERE else f"{scheme}://localhost:{port}"
    env = f", APP_ENV={settings.app_env}" if settings.app_env else ""
    unsafe = "UNSAFE, acknowledged saves can be lost: " if started.home.is_unsafe else ""
    lines = [
        f"Confide {__version__} at {url} ({settings.workers} worker{'s' if settings.workers > 1 else ''}{env})",
        f"  store       {_store_name(settings)}, epoch {started.home.epoch}",
        f"  durability  {unsafe}{started.home.durability}",
    ]
    if started.made_master_keys is not None:
        lines.append(
            f"  keys        made {started.made_master_keys}: copy it to a safe place now. Without it nothing here"
            " can ever be read again, by anybody."
        )
    if started.home.has_begun_anew:
        lines.append("  restored    this store lived elsewhere before: a new epoch begins, all sessions have ended")
    return [*lines, *_readable(settings), *_first_steps(started, url=reached, setup_token=setup_token)]


def _first_steps(started: Started, *, url: str, setup_token: str) -> list[str]:
    if started.has_had_user:
        return [f"  first       log in: confide login --url {url}   (API: {url}/docs)"]
    bearer = f" -H 'Authorization: Bearer {setup_token}'" if setup_token else ""
    body = """'{"login": "admin", "password": "…"}'"""
    return [
        "  first       there is no user yet; the first one becomes admin:",
        f"              curl {url}/user{bearer} -H 'Content-Type: application/json' -d {body}",
    ]


def _readable(settings: Settings) -> list[str]:
    """What others on this machine may read and should not; what we make ourselves they may not."""
    watched = [path for path in (settings.data, settings.data / FILE_NAME) if path.exists()]
    return [
        f"  warning     others may read {path}: chmod go= {path}" for path in watched if path.stat().st_mode & 0o077
    ]


def _store_name(settings: Settings) -> str:
    parts = urlsplit(settings.database_url)
    if parts.scheme == "sqlite":
        return f"SQLite {settings.database_url.removeprefix('sqlite:///')}"
    return f"PostgreSQL {parts.path.lstrip('/')} on {parts.hostname or 'localhost'}"


def _bound(settings: Settings) -> socket.socket:
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


def _server_config(settings: Settings, setup_token: str) -> uvicorn.Config:
    return uvicorn.Config(
        functools.partial(worker_app, settings, setup_token),
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
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _run(config: uvicorn.Config, listener: socket.socket) -> None:
    if config.workers > 1:
        Multiprocess(config, sockets=[listener]).run()
        return
    server = uvicorn.Server(config)
    # Until the server has handlers of its own a signal must not be lost; when it is done it raises the signal
    # again, and that shall end nothing a second time.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    server.run(sockets=[listener])
    if not server.started:
        raise StartFailed("The service could not start; the log says why.")
