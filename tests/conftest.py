"""Fixtures for all tests, and the search for test secrets after the last one."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from confide.server.settings import Settings
from support import canaries
from support.app import RunningApp, build_settings, start_app
from support.chosen_postgres import RUNNING, find_running_server, open_shared_server, run_own_server
from support.distribution import DistributionServer
from support.postgres import BINARIES, OwnPostgresServer, PostgresServer

# A busy machine may take long for an example. In CI, the same change gets the same examples.
hypothesis.settings.register_profile(
    "confide",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
hypothesis.settings.load_profile("confide")

ENGINES = ("sqlite", "postgresql")
POSTGRES = pytest.StashKey[PostgresServer]()


def pytest_configure(config: pytest.Config) -> None:
    # The settings of the developer must not change the tests.
    for name in list(os.environ):
        if name.startswith("CONFIDE_") and not name.startswith("CONFIDE_TEST_"):
            del os.environ[name]
    # A shell starts a background job with SIGINT ignored. The commands that the tests interrupt would inherit that.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("APP_PORT", None)
    os.environ.pop("APP_ENV", None)


def pytest_report_header() -> str | None:
    if find_running_server():
        return f"PostgreSQL: the server in {RUNNING}. Its files are not searched for secrets."
    return None


def uses_postgresql(item: pytest.Item) -> bool:
    """Return whether a test uses the PostgreSQL that the environment chooses."""
    assert isinstance(item, pytest.Function)
    if hasattr(item, "callspec") and "engine" in item.callspec.params:
        return bool(item.callspec.params["engine"] == "postgresql")
    return bool({"postgres", "own_postgres"} & set(item.fixturenames))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = items
    if not config.getoption("-m"):
        kept = [item for item in kept if not any(map(item.get_closest_marker, ("long", "containers")))]
    if BINARIES in os.environ:
        kept = [item for item in kept if uses_postgresql(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """Start one real server for all tests of this worker."""
    server = open_shared_server()
    request.session.stash[POSTGRES] = server
    yield server
    del request.session.stash[POSTGRES]
    found = server.finish()
    assert not found, f"secrets in PostgreSQL's files: {found[:5]}"


@pytest.fixture(scope="session")
def distribution() -> Iterator[DistributionServer]:
    """Run the server of the distribution, for tests of what only it can show."""
    server = DistributionServer(is_in_memory=True)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def own_postgres() -> Iterator[OwnPostgresServer]:
    """Run a durable server that only this test uses, and may stop."""
    with run_own_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _drop_databases(request: pytest.FixtureRequest) -> Iterator[None]:
    """Drop old databases after a test. pytest sets up an autouse fixture first, so it tears it down last."""
    yield
    if (server := request.session.stash.get(POSTGRES, None)) is not None:
        server.drop_databases()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(engine: str, request: pytest.FixtureRequest) -> str | None:
    """Return the URL of an empty database; None means SQLite in the data folder."""
    if engine == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def settings(tmp_path: Path, database: str | None) -> Settings:
    return build_settings(tmp_path / "data", database)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[RunningApp]:
    """Start the app on both engines, in this process."""
    async with start_app(settings) as built:
        yield built


@pytest.fixture
async def sqlite_app(tmp_path: Path) -> AsyncIterator[RunningApp]:
    async with start_app(build_settings(tmp_path / "data", None)) as built:
        yield built


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search every log and file of the run for test secrets."""
    if hasattr(session.config, "workerinput") or session.config.option.collectonly:
        return
    base = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    files = [path for path in base.rglob("*") if path.is_file() and canaries.SKIPPED_FOLDER not in path.parts]
    size, found = canaries.search(files)
    print(f"\ncanary search: {len(files)} files, {size:,} bytes, {len(found)} found")
    for place in found[:20]:
        print(f"  {place}")
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
