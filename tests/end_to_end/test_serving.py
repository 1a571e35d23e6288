"""Start, serve and stop: what the service prints and creates, and how each failure ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support import raw_http
from support.app import PASSWORD, TYPE
from support.canaries import make_canary
from support.certificates import create_certificate
from support.ports import find_free_port
from support.postgres import PostgresServer
from support.processes import Service, build_environment, run_confide, run_service, start_process
from support.waiting import MAX_WAIT_SECONDS, wait_until


def test_the_start_prints_address_database_durability_and_the_first_step(tmp_path: Path) -> None:
    with run_service(tmp_path, is_unsafe=False, env={"APP_ENV": "staging"}) as service:
        printed = service.log.read_text()
        assert f"at {service.url} (1 worker, APP_ENV=staging)" in printed
        assert "SQLite confide-data/confide.db, epoch " in printed
        assert "SQLite wal, synchronous=FULL" in printed
        assert "created confide-data/master.keys: copy it to a safe place now" in printed
        assert f"curl {service.url}/user" in printed
        service.add_admin()
        assert service.stop() == 0
        service.log.unlink()
        service.start()
        printed = service.log.read_text()
        assert "confide login" in printed
        assert "master.keys" not in printed


def test_the_data_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        service.add_admin()
        assert service.data.stat().st_mode & 0o777 == 0o700
        modes = {path.name: path.stat().st_mode & 0o777 for path in service.data.iterdir()}
        assert {"confide.db", "master.keys", "confide.lock"} <= modes.keys()
        # Created with the first written events.
        assert modes.pop("io", 0o700) == 0o700
        assert set(modes.values()) == {0o600}


def test_app_port_sets_the_port(tmp_path: Path) -> None:
    port = find_free_port()
    env = build_environment(APP_PORT=str(port), CONFIDE_UNSAFE_DURABILITY="true")
    with start_serve(tmp_path, env=env) as process:
        assert process.stdout is not None
        assert f":{port} (1 worker" in process.stdout.readline()
        process.terminate()
        assert process.wait(MAX_WAIT_SECONDS) == 0


def start_serve(folder: Path, *args: str, env: Mapping[str, str]) -> AbstractContextManager[subprocess.Popen[Any]]:
    command = [sys.executable, "-m", "confide", "serve", *args]
    return start_process(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("hundredths", range(0, 20, 4))
def test_a_signal_at_any_moment_of_the_start_is_not_lost(tmp_path: Path, hundredths: int) -> None:
    env = build_environment(CONFIDE_UNSAFE_DURABILITY="true")
    with start_serve(tmp_path, "--port", "0", env=env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(hundredths / 100)  # the moment is what the test varies
        process.terminate()
        process.stdout.read()
        assert process.wait(MAX_WAIT_SECONDS) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_running_requests_finish_and_the_exit_code_is_0(
    tmp_path: Path, database: str | None, workers: str
) -> None:
    with run_service(tmp_path, "--workers", workers, database=database) as service:
        service.add_admin()
        body = json.dumps({"login": "root", "password": PASSWORD}).encode()
        headers = [("Content-Type", "application/json"), ("Expect", "100-continue")]
        head = raw_http.build_request("POST", "/login", headers, body, closes=False).removesuffix(body)
        connections = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(4)]
        idle = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(8)]
        for reader, writer in connections:
            writer.write(head)
            assert b" 100 " in await reader.readuntil(b"\r\n\r\n"), (
                "the service requests the body once it handles the request"
            )
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        # A worker that stops closes its idle connections.
        closing = [asyncio.create_task(reader.read()) for reader, _ in idle]
        await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
        for _, writer in connections:
            writer.write(body)
        for reader, writer in connections:
            (reply,) = raw_http.parse_replies(await reader.read())
            assert reply.status == 200
            writer.close()
        await asyncio.gather(*closing)
        for _, writer in idle:
            writer.close()
        assert await asyncio.to_thread(service.process.wait, MAX_WAIT_SECONDS) == 0


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with run_service(tmp_path, "--workers", "2") as service:
        service.add_admin()
        assert service.process is not None
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        for pid in workers:
            os.kill(pid, signal.SIGKILL)

        def can_log_in() -> bool:
            with contextlib.suppress(httpx2.HTTPError, KeyError, ValueError):
                return bool(service.login())
            return False

        wait_until(can_log_in, "a new worker answers")


def run_failing_start(tmp_path: Path, *args: str, **env: str) -> tuple[int, str]:
    done = run_confide("serve", "--port", str(find_free_port()), *args, cwd=tmp_path, env=env)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip()


def test_a_taken_port_ends_the_start_with_3(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, message = run_failing_start(tmp_path, "--port", port)
    taken_port = f"confide: Cannot listen on 127.0.0.1:{port}: Address already in use."
    assert (code, message) == (3, f"{taken_port} Choose another with --port or CONFIDE_PORT.")


def test_an_unreachable_database_ends_the_start_with_4(tmp_path: Path) -> None:
    code, message = run_failing_start(
        tmp_path, CONFIDE_DATABASE="postgresql://confide:cnry-password-x@127.0.0.1:1/nothing"
    )
    assert code == 4
    assert len(message.splitlines()) == 1
    assert "cnry-" not in message


@pytest.mark.parametrize("what", ["missing", "another", "other bytes"])
def test_a_wrong_master_key_ends_the_start_with_5(tmp_path: Path, database: str | None, what: str) -> None:
    with run_service(tmp_path, database=database) as service:
        service.add_admin()
    path = service.data / "master.keys"
    key_id = path.read_text().split()[0]
    path.unlink()
    if what == "another":
        path.write_text("00" * 16 + " " + "A" * 43 + "=\n")
    if what == "other bytes":
        path.write_text(f"{key_id} {'A' * 43}=\n")
    env = {"CONFIDE_UNSAFE_DURABILITY": "true"}
    if database is not None:
        env["CONFIDE_DATABASE"] = database
    code, message = run_failing_start(tmp_path, **env)
    assert code == 5, message
    assert len(message.splitlines()) == 1
    assert (path.exists(), "A" * 43 in message) == (what != "missing", False)


def test_a_newer_schema_ends_the_start_with_6(tmp_path: Path) -> None:
    import apsw  # noqa: PLC0415 - only this test writes with the driver

    with run_service(tmp_path) as service:
        pass
    database = apsw.Connection(str(service.data / "confide.db"))
    database.execute("INSERT INTO schema_migrations VALUES (9999, 'future', 'x', 1)")
    database.close()
    code, message = run_failing_start(tmp_path, CONFIDE_UNSAFE_DURABILITY="true")
    assert (code, message) == (
        6,
        "confide: The database has schema 9999, but this Confide supports 5. Use a newer Confide.",
    )


def test_a_database_without_durability_ends_the_start_with_7(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    postgres.execute(f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET synchronous_commit = off")
    code, message = run_failing_start(tmp_path, CONFIDE_DATABASE=url)
    assert code == 7
    assert "synchronous_commit=off" in message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--host", "0.0.0.0"), "not loopback"),  # noqa: S104 - refused
        (("--tls-cert", "pyproject.toml"), "go together"),
        (("--port", "99999"), "not in the range"),
        (("--workers", "0"), "not in the range"),
        (("--nonsense",), "No such option"),
    ],
)
def test_a_wrong_command_line_ends_with_2(args: tuple[str, ...], message: str) -> None:
    done = run_confide("serve", *args, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")


def test_a_wrong_setting_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    code, message = run_failing_start(tmp_path, CONFIDE_POOL_SIZE="many")
    assert code == 2
    assert "CONFIDE_POOL_SIZE" in message


def test_help_names_every_variable() -> None:
    printed = run_confide("serve", "--help", cwd=Path.cwd()).stdout
    for name in ("HOST", "PORT", "DATA", "DATABASE", "WORKERS", "TLS_CERT", "TLS_KEY", "BEHIND_TLS_PROXY"):
        assert f"CONFIDE_{name}" in printed


def test_the_service_serves_tls_and_the_setup_token_adds_the_first_user(tmp_path: Path) -> None:
    cert, key = create_certificate(tmp_path)
    args = ("--host", "0.0.0.0", "--tls-cert", str(cert), "--tls-key", str(key))  # noqa: S104 - with TLS
    service = Service(tmp_path, *args)
    service.launch()
    try:
        context = ssl.create_default_context(cafile=str(cert))
        with httpx2.Client(base_url=f"https://localhost:{service.port}", verify=context) as client:

            def is_ready() -> bool:
                with contextlib.suppress(httpx2.HTTPError):
                    return client.get("/health/ready").is_success
                return False

            wait_until(is_ready, "the service answers over TLS")
            document = {"login": "root", "password": PASSWORD}
            assert client.post("/user", json=document).status_code == 401
            token = service.log.read_text().split("Authorization: Bearer ")[1].split("'")[0]
            reply = client.post("/user", json=document, headers={"Authorization": f"Bearer {token}"})
            assert reply.json() == {"user_id": 1}
        assert service.stop() == 0
    finally:
        service.end()


def test_forwarded_addresses_count_only_from_trusted_proxies(tmp_path: Path) -> None:
    with run_service(tmp_path, "--trusted-proxies", "127.0.0.1") as service:
        assert run_confide("user", "add", "root", "--admin", cwd=tmp_path, stdin=PASSWORD + "\n").returncode == 0
        with service.client() as client:
            document = {"login": "root", "password": make_canary("password")}
            for number in range(12):
                headers = {"X-Forwarded-For": f"198.51.100.{number}"}
                assert client.post("/login", json=document, headers=headers).status_code == 401
            for _ in range(5):
                client.post("/login", json=document, headers={"X-Forwarded-For": "203.0.113.9"})
            last = client.post("/login", json=document, headers={"X-Forwarded-For": "203.0.113.9"})
            assert last.status_code == 429


def test_importing_confide_opens_no_file_and_no_connection() -> None:
    code = """
import sys
before = set(sys.modules)
events = []
sys.addaudithook(lambda name, args: events.append((name, args)) if name in ("open", "socket.connect") else None)
import confide
opened = [str(args[0]) for name, args in events if name == "open" and not str(args[0]).endswith((".pyc", ".py"))]
print(sorted(set(sys.modules) - before), opened)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['confide'] []"


def test_logs_are_json_lines_without_query_or_secret(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        token = service.add_admin()
        secret = make_canary("value")
        with service.client() as client:
            client.get("/login", params={"login": "root", "password": secret})
            client.get("/config", params={"tenant": "acme", "integration_type": TYPE, "token": token})
            client.get("/config", headers={"Authorization": f"Basic {secret}"})
        lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
        assert {"method", "path", "status", "request_id", "milliseconds", "timestamp"} <= lines[-1].keys()
        text = service.log.read_text()
        assert secret not in text
        assert token not in text
        assert "?" not in text


def test_a_clean_stop_leaves_no_temporary_files(tmp_path: Path) -> None:
    with run_service(tmp_path, "--workers", "2", is_unsafe=False) as service:
        token = service.add_admin()
        assert run_confide(
            "user", "list", cwd=tmp_path, env={"CONFIDE_TOKEN": token, "CONFIDE_URL": service.url}
        ).stdout
        assert service.stop() == 0
        assert {path.name for path in service.data.iterdir()} == {
            "checkpoints.jsonl",
            "confide.db",
            "confide.lock",
            "io",
            "master.keys",
            "signed-store.json",
            "stamps",
        }
        assert {path.name for path in (service.data / "io").iterdir()} == {"0.db", "0.lock", "1.db", "1.lock"}


def test_commands_on_the_host_are_as_durable_as_the_service(tmp_path: Path) -> None:
    """After a power cut, the last writer decides what is lost, so every command must sync its writes."""
    strace = shutil.which("strace")
    if strace is None and os.environ.get("CI"):
        pytest.fail("strace is missing, and CI must have it")
    if strace is None:
        pytest.skip("strace is not installed: apt-get install strace")
    with run_service(tmp_path, is_unsafe=False) as service:
        service.add_admin()
        trace = tmp_path / "trace"
        command = [strace, "-f", "-qq", "-y", "-e", "trace=fsync,fdatasync", "-o", str(trace), sys.executable, "-m"]
        command += ["confide", "user", "add", "second", "--admin"]
        env = build_environment()
        done = subprocess.run(
            command, cwd=tmp_path, env=env, input=PASSWORD + "\n", text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "confide.db-wal" in trace.read_text()


def test_behind_a_proxy_on_this_machine_the_first_user_needs_the_setup_token(tmp_path: Path) -> None:
    with run_service(tmp_path, "--behind-tls-proxy") as service, service.client() as client:
        assert "the proxy is not trusted: name its addresses with --trusted-proxies" in service.log.read_text()
        document = {"login": "root", "password": PASSWORD}
        assert client.post("/user", json=document).status_code == 401
        token = service.log.read_text().split("Authorization: Bearer ")[1].split("'")[0]
        headers = {"Authorization": f"Bearer {token}"}
        assert client.post("/user", json=document, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("env", "code", "message"),
    [
        ({"CONFIDE_DATABASE": "mysql://x"}, 2, "CONFIDE_DATABASE"),
        ({"CONFIDE_DATABASE": "postgresql://127.0.0.1:abc/x"}, 2, "port of a database URL"),
        ({"CONFIDE_DATABASE": "postgresql://127.0.0.1:1/x"}, 4, "cannot be reached"),
        ({"CONFIDE_DATABASE": "sqlite:////nowhere/at/all.db"}, 4, "cannot be opened"),
        ({"CONFIDE_TRUSTED_PROXIES": "nobody"}, 2, "CONFIDE_TRUSTED_PROXIES"),
        ({"CONFIDE_OLD_CONTRACT": "maybe"}, 2, "on or off"),
        ({"CONFIDE_DATA": "/proc/nowhere"}, 1, "/proc"),
        ({"CONFIDE_TLS_CERT": __file__, "CONFIDE_TLS_KEY": __file__}, 2, "PEM"),
    ],
)
def test_a_failed_setup_ends_the_start_with_one_sentence(
    tmp_path: Path, env: dict[str, str], code: int, message: str
) -> None:
    found, text = run_failing_start(tmp_path, **env)
    assert (found, message in text) == (code, True), text
    assert not (tmp_path / "confide-data" / "master.keys").exists()


def test_the_start_warns_of_an_unknown_setting_but_not_of_test_options(tmp_path: Path) -> None:
    with run_service(tmp_path, env={"CONFIDE_WORKRES": "4", "CONFIDE_TEST_DATABASE": "postgresql:///x"}) as service:
        log = service.log.read_text()
        assert "CONFIDE_WORKRES is not a setting" in log
        assert "CONFIDE_TEST_DATABASE" not in log


def test_the_start_warns_of_a_folder_that_other_users_can_read(tmp_path: Path) -> None:
    (tmp_path / "confide-data").mkdir()
    (tmp_path / "confide-data").chmod(0o755)
    with run_service(tmp_path) as service:
        assert "other users can read confide-data: chmod go= confide-data" in service.log.read_text()
