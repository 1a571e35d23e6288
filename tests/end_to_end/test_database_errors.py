"""Errors of PostgreSQL on its way to the operator: one sentence at the start, and 503 with a reason while running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from confide.context import RESPONSE_TIMEOUT_SECONDS
from confide.errors import DatabaseReadOnly
from confide.server.preparation import prepare
from confide.server.stores import open_stores
from support.app import ADMIN, RunningApp, build_settings, start_app
from support.canaries import make_canary
from support.ports import find_free_port
from support.postgres import LocalPostgresServer, find_distribution_binaries
from support.processes import run_confide
from support.proxy import Proxy
from support.silent_host import open_silent_port
from support.waiting import MAX_WAIT_SECONDS, wait_until

ROLE = "operator"
# With reserved characters of a URL.
ROLE_PASSWORD = make_canary("password") + "#/@:?"
COMMANDS = (("serve", "--port", "0"), ("migrate",), ("backup", "file"))
UNREACHABLE, UNSAFE = 4, 7


@pytest.fixture(scope="module")
def server() -> Iterator[LocalPostgresServer]:
    """A server with a role that needs its password, which has reserved characters."""
    server = LocalPostgresServer(options=(), binaries=find_distribution_binaries())
    rules = server.data / "pg_hba.conf"
    rules.write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    server.start()
    server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE_PASSWORD}'")
    yield server
    server.remove()


@dataclass(frozen=True)
class Site:
    """An empty database of the role `operator`."""

    server: LocalPostgresServer
    database: str

    def url(self, *, password: str | None = None, database: str | None = None, hosts: str | None = None) -> str:
        account = f"{ROLE}:{quote(password or ROLE_PASSWORD, safe='')}"
        hosts = hosts or f"{self.server.host}:{self.server.port}"
        return f"postgresql://{account}@{hosts}/{database or self.database}"

    def execute(self, *statements: str) -> None:
        for statement in statements:
            self.server.execute(statement)

    def end_sessions(self) -> None:
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.database}'")


@pytest.fixture
def site(server: LocalPostgresServer) -> Site:
    database = server.new_database().rsplit("/", 1)[1]
    server.execute(f"ALTER DATABASE {database} OWNER TO {ROLE}")
    return Site(server, database)


def give_to_another_role(site: Site) -> str:
    site.execute(f"ALTER DATABASE {site.database} OWNER TO confide")
    return site.url()


def make_read_only(site: Site) -> str:
    site.execute(f"ALTER DATABASE {site.database} SET default_transaction_read_only = on")
    return f"{site.url()}?target_session_attrs=read-write"


def forbid_connections(site: Site) -> str:
    site.execute(f"ALTER DATABASE {site.database} CONNECTION LIMIT 0")
    return site.url()


def make_unsafe(site: Site) -> str:
    site.execute(f"ALTER DATABASE {site.database} SET synchronous_commit = off")
    return site.url()


AT_START: dict[str, tuple[Callable[[Site], str], int, str]] = {
    "no right on the schema": (give_to_another_role, UNREACHABLE, "lacks a right, permission denied for schema public"),
    "no writable server": (make_read_only, UNREACHABLE, DatabaseReadOnly.sentence),
    "wrong password": (lambda site: site.url(password="x#/"), UNREACHABLE, "password authentication failed"),
    "no such database": (lambda site: site.url(database="missing"), UNREACHABLE, 'database "missing" does not exist'),
    "full": (forbid_connections, UNREACHABLE, "too many connections"),
    "unsafe": (make_unsafe, UNSAFE, "synchronous_commit=off"),
    "down": (lambda site: site.url(hosts=f"127.0.0.1:{find_free_port()}"), UNREACHABLE, "cannot be reached"),
    "unknown host": (lambda site: site.url(hosts="host.invalid"), UNREACHABLE, "cannot be reached"),
    "unknown parameter": (lambda site: f"{site.url()}?color=blue", UNREACHABLE, 'parameter "color"'),
    "no certificate": (lambda site: f"{site.url()}?sslmode=require", UNREACHABLE, "SSL"),
}


@pytest.mark.parametrize("case", AT_START)
def test_a_start_that_postgresql_prevents_ends_with_one_sentence(tmp_path: Path, site: Site, case: str) -> None:
    arrange, code, sentence = AT_START[case]
    check_start(tmp_path, arrange(site), code=code, sentence=sentence)


def check_start(folder: Path, url: str, *, code: int, sentence: str) -> None:
    commands = COMMANDS[:2] if sentence.startswith("lacks a right") else COMMANDS
    # Commands on the host accept any durability.
    for command in commands if code != UNSAFE else COMMANDS[:1]:
        done = run_confide(*command, cwd=folder, env={"CONFIDE_DATABASE": url})
        lines = done.stderr.strip().splitlines()
        assert (done.returncode, len(lines)) == (code, 1), done.stderr
        assert lines[0].startswith("confide: ")
        assert sentence in lines[0]


def test_a_silent_server_ends_the_start_with_one_sentence(tmp_path: Path, site: Site) -> None:
    with open_silent_port() as port:
        check_start(tmp_path, site.url(hosts=f"127.0.0.1:{port}"), code=UNREACHABLE, sentence="no answer within 1.5 s")


async def test_the_url_can_give_a_start_more_time_than_a_query_has(site: Site) -> None:
    proxy = Proxy(site.server.port, host=site.server.host)
    await proxy.start()
    url = site.url(hosts=f"127.0.0.1:{proxy.port}")
    # A connection needs more than ten packets.
    proxy.delay_seconds = RESPONSE_TIMEOUT_SECONDS / 10
    stores = open_stores(f"{url}?connect_timeout=100")
    await stores.database.connect()
    await stores.close()
    await proxy.stop()


def test_a_server_that_starts_up_ends_the_start_with_one_sentence(tmp_path: Path, site: Site) -> None:
    # A standby without hot standby answers like a server that starts up, for as long as it runs.
    binaries = find_distribution_binaries()
    starting = LocalPostgresServer(options=("hot_standby=off",), binaries=binaries, primary=site.server)
    starting.launch()
    try:
        wait_until(lambda: "not accepting connections" in run_migrate(tmp_path, site, starting), "the server answers")
        check_start(
            tmp_path,
            site.url(hosts=f"127.0.0.1:{starting.port}"),
            code=UNREACHABLE,
            sentence="not accepting connections",
        )
    finally:
        starting.remove()


def run_migrate(folder: Path, site: Site, server: LocalPostgresServer) -> str:
    url = site.url(hosts=f"127.0.0.1:{server.port}")
    return run_confide("migrate", cwd=folder, env={"CONFIDE_DATABASE": url}).stderr


@contextmanager
def no_rights(site: Site) -> Iterator[None]:
    tables = "ALL TABLES IN SCHEMA public"
    run_in(site, f"REVOKE ALL ON {tables} FROM {ROLE}")
    yield
    run_in(site, f"GRANT ALL ON {tables} TO {ROLE}")


def run_in(site: Site, statement: str) -> None:
    asyncio.run(site.server.fetch(statement, database=site.database))


@contextmanager
def no_connections(site: Site) -> Iterator[None]:
    site.execute(f"ALTER DATABASE {site.database} CONNECTION LIMIT 0")
    site.end_sessions()
    yield
    site.execute(f"ALTER DATABASE {site.database} CONNECTION LIMIT -1")


@contextmanager
def another_password(site: Site) -> Iterator[None]:
    site.execute(f"ALTER ROLE {ROLE} PASSWORD 'other'")
    site.end_sessions()
    yield
    site.execute(f"ALTER ROLE {ROLE} PASSWORD '{ROLE_PASSWORD}'")


@contextmanager
def no_login(site: Site) -> Iterator[None]:
    site.execute(f"ALTER ROLE {ROLE} NOLOGIN")
    site.end_sessions()
    yield
    site.execute(f"ALTER ROLE {ROLE} LOGIN")


@contextmanager
def closed_database(site: Site) -> Iterator[None]:
    site.execute(f"ALTER DATABASE {site.database} ALLOW_CONNECTIONS false")
    site.end_sessions()
    yield
    site.execute(f"ALTER DATABASE {site.database} ALLOW_CONNECTIONS true")


@contextmanager
def renamed_database(site: Site) -> Iterator[None]:
    site.execute(f"ALTER DATABASE {site.database} ALLOW_CONNECTIONS false")
    site.end_sessions()
    site.execute(f"ALTER DATABASE {site.database} RENAME TO {site.database}_x")
    yield
    site.execute(
        f"ALTER DATABASE {site.database}_x RENAME TO {site.database}",
        f"ALTER DATABASE {site.database} ALLOW_CONNECTIONS true",
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (no_rights, "lacks a right, permission denied for table"),
        (no_connections, "too many connections"),
        (another_password, "password authentication failed"),
        (no_login, "not permitted to log in"),
        (closed_database, "not currently accepting connections"),
        (renamed_database, "does not exist"),
    ],
)
async def test_an_error_of_postgresql_while_running_is_503_with_a_reason_and_stale_reads_until_it_is_over(
    tmp_path: Path,
    site: Site,
    fault: Callable[[Site], Iterator[None]],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "confide")
    settings = build_settings(tmp_path / "data", site.url())
    await prepare(settings)
    async with start_app(settings) as app:
        token = await app.create_token("root", *ADMIN)
        await app.save(token, {"n": 1})
        assert (await app.read(token)).status_code == 200
        steps = fault(site)
        await asyncio.to_thread(steps.__enter__)  # type: ignore[attr-defined]
        await wait_for_stale(app, token)
        refused = await app.save(token, {"n": 2})
        assert (refused.status_code, refused.json()["code"]) == (503, "store-unavailable")
        await asyncio.to_thread(steps.__exit__, None, None, None)  # type: ignore[attr-defined]
        await wait_for_save(app, token)
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while "config-freshness" in (await app.read(token)).headers:  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(0.05)
    lines = [record.getMessage() for record in caplog.records if record.name == "confide"]
    assert any(line.startswith("change_feed_unavailable") and reason in line for line in lines), lines
    assert any(line.startswith("change_feed_available") for line in lines)
    assert not [line for line in lines if line.startswith("change_feed_reset") or "failed" in line.split(" ")[0]]


async def wait_for_stale(app: RunningApp, token: str) -> None:
    """Read until a response is marked as stale. No read may fail meanwhile."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            reply = await app.read(token)
            assert reply.status_code == 200
            if "config-freshness" in reply.headers:
                return
            await asyncio.sleep(0.05)


async def wait_for_save(app: RunningApp, token: str) -> None:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            reply = await app.save(token, {"n": 3})
            assert reply.status_code in (200, 503), reply.text
            if reply.status_code == 200:
                return
            await asyncio.sleep(0.05)
