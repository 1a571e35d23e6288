"""I/O events of a real service agree with what clients measure, name slow operations and hold no secret."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import pytest

from confide.names import ConfigKey
from support import canaries
from support.app import TYPE
from support.bounds import assert_within
from support.canaries import SKIPPED_FOLDER, make_canary
from support.collectors import build_bulk_response, run_collector, run_silent_server
from support.postgres import PostgresServer
from support.processes import FAULTY_SERVICE, Service, build_environment, run_confide, run_service
from support.proxy import Proxy
from support.streams import Stream
from support.waiting import wait_until

ADDRESS = {"tenant": "acme", "integration_type": TYPE}
SAVED = "request POST /config"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def load_events(service: Service) -> list[dict[str, Any]]:
    """Load all events that the workers wrote."""
    found = []
    for path in sorted((service.data / "io").glob("*.db")):
        connection = sqlite3.connect(path)
        connection.row_factory = sqlite3.Row
        with suppress(sqlite3.OperationalError):  # the worker is creating the file
            found += [dict(row) for row in connection.execute("SELECT * FROM events ORDER BY ended_ns")]
        connection.close()
    return found


def count_events(service: Service, operation: str) -> int:
    return sum(one["operation"] == operation for one in load_events(service))


def wait_for_events(service: Service, operation: str, count: int) -> None:
    wait_until(lambda: count_events(service, operation) >= count, f"{count} events of {operation}")


def stop_and_load_events(service: Service) -> list[dict[str, Any]]:
    """Stop the service, which writes all its events, and load those of requests."""
    assert service.stop() == 0
    return [one for one in load_events(service) if one["request_id"] or one["user_id"]]


def wait_for_metrics(service: Service, *patterns: str) -> str:
    """Return the metrics page once it matches all patterns."""
    page = ""

    def has_all() -> bool:
        nonlocal page
        with service.client() as client:
            page = client.get("/metrics").text
        return all(re.search(pattern, page) for pattern in patterns)

    wait_until(has_all, f"metrics {patterns}")
    return page


class SavingClient:
    """A client with little overhead that saves over one connection and measures the latency."""

    def __init__(self, service: Service, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", service.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._token = token

    def save(self, configuration: Any) -> tuple[str, float]:
        """Save a configuration. Return the request ID and the latency in milliseconds."""
        body = json.dumps({**ADDRESS, "configuration": configuration}).encode()
        head = (
            f"POST /config HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        start = time.perf_counter()
        self._socket.sendall(head + body)
        answer = self._read_response()
        took = (time.perf_counter() - start) * 1e3
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return answer.split(b"request-id: ")[1].split(b"\r\n")[0].decode(), took

    def _read_response(self) -> bytes:
        """Read the head and the body, which may come in several pieces."""
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            answer += self._socket.recv(65_536)
        return answer

    def close(self) -> None:
        self._socket.close()


async def test_events_agree_with_the_latency_that_a_client_measures(tmp_path: Path, database: str | None) -> None:
    with run_service(tmp_path, database=database) as service:
        client = SavingClient(service, service.add_admin())
        rounds = [[client.save({"number": part * 50 + number}) for number in range(50)] for part in range(10)]
        client.close()
        events = await asyncio.to_thread(stop_and_load_events, service)
    requests = {one["request_id"]: one for one in events if one["operation"] == SAVED}
    latencies = {request_id: took for part in rounds for request_id, took in part}
    assert len([one for one in events if one["operation"] == SAVED]) == 500
    assert requests.keys() == latencies.keys()
    for request_id, took in latencies.items():
        assert get_milliseconds(requests[request_id]) <= took
    # Other processes only add to the latency, so the round with the smallest difference counts.
    differences = [
        median(took for _, took in part) - median(get_milliseconds(requests[id_]) for id_, _ in part) for part in rounds
    ]
    assert_within(min(differences) / 1e3, 0.001, "a request outside of its event")
    parents = {one["id"]: one for one in requests.values()}
    children = [one for one in events if one["parent"] in parents]
    assert {one["request_id"] for one in children} == latencies.keys()
    for one in children:
        request = parents[one["parent"]]
        assert request["began_ns"] <= one["began_ns"] <= one["ended_ns"] <= request["ended_ns"]
        # The user is known only after the token lookup.
        user_id = None if one["operation"] == "sql tokens.read" else 1
        assert (one["request_id"], one["user_id"]) == (request["request_id"], user_id)
    # The first save also creates the data key of the tenant.
    last = {request_id for request_id, _ in rounds[-1]}
    appended = {one["operation"] for one in children if one["request_id"] in last}
    assert "sql configs.append" in appended
    assert ("commit" in appended) == (database is None)


def get_milliseconds(event: dict[str, Any]) -> float:
    return float(event["ended_ns"] - event["began_ns"]) / 1e6


async def test_the_report_names_the_operations_of_a_slow_database(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    proxy = Proxy(postgres.port, host=postgres.host)
    await proxy.start()
    behind = postgres.build_proxied_url(url, proxy.port)
    assert behind != url

    def slow_down_and_save() -> Any:
        with run_service(tmp_path, database=behind) as service:
            client = SavingClient(service, service.add_admin())
            for number in range(20):
                client.save({"quick": number})
            proxy.delay_seconds = 0.02
            start = datetime.now(UTC).isoformat()
            for number in range(20):
                client.save({"slow": number})
            proxy.delay_seconds = 0.0
            client.close()
            stop_and_load_events(service)
            reports = []
            for args in (
                ("--op", "sql configs.*"),
                ("--op", "sql configs.*", "--since", start),
            ):
                done = run_confide("io", "report", "--json", *args, cwd=tmp_path)
                assert done.returncode == 0, done.stderr
                reports.append(json.loads(done.stdout))
            whole = json.loads(run_confide("io", "report", "--json", cwd=tmp_path).stdout)
            return *reports, whole

    try:
        all_of_it, slow, whole = await asyncio.to_thread(slow_down_and_save)
    finally:
        await proxy.stop()
    by_name = {line["operation"]: line for line in all_of_it["operations"]}
    slow_by_name = {line["operation"]: line for line in slow["operations"]}
    # Half of all saves were quick. Since the delay, all were slow, because of their statements.
    assert slow_by_name["sql configs.append"]["p50_ms"] >= 20
    assert slow_by_name["sql configs.read"]["p50_ms"] >= 20
    assert by_name["sql configs.append"]["count"] == 40
    slowest = next(one for one in whole["slowest"] if one["operation"] == "request POST /config")
    slow_operations = {one["operation"]: one["took"] / 1e6 for one in slowest["operations"]}
    assert slow_operations["sql configs.append"] >= 20
    assert sum(slow_operations.values()) > 0.8 * slowest["took"] / 1e6


async def test_hanging_sinks_fail_no_request_and_lose_only_their_own_events(tmp_path: Path) -> None:
    with run_silent_server() as silent:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)  # opening it for writing blocks, because no process reads it
        sinks = (
            f"sqlite,elasticsearch+http://127.0.0.1:{silent},otlp+http://127.0.0.1:{silent},"
            f"postgresql://x@127.0.0.1:{silent}/x,file://{fifo}"
        )
        env = {"CONFIDE_IO_SINKS": sinks, "CONFIDE_IO_QUEUE": "500", "CONFIDE_METRICS": "open"}
        with run_service(tmp_path, env=env) as service:
            client = SavingClient(service, service.add_admin())
            # Never more events at once than a queue holds: only the queues of the hanging sinks overflow.
            for part in range(1, 31):
                for number in range(10):
                    client.save({"part": part, "number": number})  # checks for 200
                await asyncio.to_thread(wait_for_events, service, SAVED, part * 10)
            client.close()
            hanging = ("elasticsearch", "otlp", "postgresql", "file")
            dropped: dict[str, float] = {}

            def has_overflowed() -> bool:
                dropped.update(load_dropped_events(service))
                return all(dropped.get(name, 0) > 500 for name in hanging)

            await asyncio.to_thread(wait_until, has_overflowed, "the queues of all hanging sinks overflow")
            start = time.monotonic()
            events = await asyncio.to_thread(stop_and_load_events, service)
            assert_within(time.monotonic() - start, 10, "a stop with hanging sinks")
    assert sum(one["operation"] == SAVED for one in events) == 300
    assert dropped.keys() == {"events", "sqlite", *hanging}
    assert dropped["events"] == dropped["sqlite"] == 0


def load_dropped_events(service: Service) -> dict[str, float]:
    """Load how many events each sink dropped."""
    with service.client() as client:
        page = client.get("/metrics").text
    return {
        line.split('"')[1]: float(line.split()[-1])
        for line in page.splitlines()
        if line.startswith("confide_io_dropped_events_total")
    }


@contextmanager
def run_recording_collectors(folder: Path) -> Iterator[str]:
    """Run two collectors that store every received byte in files. Yield their addresses."""
    folder.mkdir()

    def build_recorder(name: str) -> Any:
        def record(_path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
            with (folder / name).open("ab") as file:
                file.write(body + json.dumps(headers).encode())
            return 200, build_bulk_response(body, lambda _: 201) if name == "bulk" else b""

        return record

    with run_collector(build_recorder("bulk")) as bulk, run_collector(build_recorder("otlp")) as otlp:
        yield f"elasticsearch+http://127.0.0.1:{bulk},otlp+http://127.0.0.1:{otlp}"


def send_canaries_everywhere(service: Service) -> None:
    """Send canaries in bodies, tokens, passwords, headers, methods and queries."""
    token = service.add_admin()
    with service.client(token) as client:
        for name in ("password", "note"):
            client.post("/config", json={**ADDRESS, "configuration": {name: make_canary("value")}}).raise_for_status()
        client.get("/config", params=ADDRESS).raise_for_status()
        client.get("/config", params={**ADDRESS, "token": make_canary("token")})
        client.get("/nowhere", headers={"traceparent": make_canary("trace"), "Cookie": make_canary("cookie")})
        client.post("/config", content=b'{"configuration": "' + make_canary("broken").encode())
        client.post("/user", json={"login": "ada", "password": make_canary("password")}).raise_for_status()
        client.request(make_canary("METHOD")[:20], "/config")
    with service.client(f"cfd_{make_canary('bad')}") as client:
        client.get("/config", params=ADDRESS)
    with service.client() as client:
        client.post("/login", json={"login": "root", "password": make_canary("wrong")})


async def test_no_sink_no_metric_and_no_report_holds_a_secret(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with run_recording_collectors(tmp_path / "collected") as addresses:
        lines = tmp_path / "events.jsonl"
        sinks = f"sqlite,stdout,file://{lines},{url},{addresses}"
        env = {"CONFIDE_IO_SINKS": sinks, "CONFIDE_IO_SAMPLE": "1", "CONFIDE_METRICS": "open"}
        with run_service(tmp_path / "service", env=env) as service:
            await asyncio.to_thread(send_canaries_everywhere, service)
            page = await asyncio.to_thread(wait_for_metrics, service, "request POST /config")
            (tmp_path / "metrics.txt").write_text(page)
            assert await asyncio.to_thread(service.stop) == 0
        for args in (("--html", "../report.html"), ("--json",), ()):
            done = run_confide("io", "report", *args, cwd=service.folder)
            assert done.returncode == 0, done.stderr
            (tmp_path / f"report{len(args)}.txt").write_text(done.stdout)
    connection = await asyncpg.connect(url)
    with (tmp_path / "table.csv").open("wb") as file:
        await connection.copy_from_table("confide_io", output=file, format="csv")
    await connection.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]  # noqa: ASYNC240 - nothing else runs
    for name in (
        "events.jsonl",
        "bulk",
        "table.csv",
        "otlp",
        "0.db",
        "metrics.txt",
        "report.html",
        "report1.txt",
        "service.log",
    ):
        (path,) = [path for path in files if path.name == name]
        assert b"request POST /config" in path.read_bytes(), name
    _, found = canaries.search(files)
    assert found == []


async def test_a_secret_in_the_name_of_an_operation_is_detected(tmp_path: Path) -> None:
    """A deliberate fault of the search above."""
    env = {"FAULT": "arguments-in-operations"}
    with run_service(tmp_path / SKIPPED_FOLDER, program=FAULTY_SERVICE, env=env) as service:
        token = service.add_admin()
        with service.client(token) as client:
            client.get("/configs", params={"tenant": make_canary("tenant")[:20], "integration_type": "*"})
        assert await asyncio.to_thread(service.stop) == 0
    _, found = canaries.search((service.data / "io").iterdir())
    assert found


async def test_the_trace_of_a_client_is_recorded_and_the_cli_sends_one(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        token = service.add_admin()
        with service.client(token) as client:
            client.headers["traceparent"] = f"00-{TRACE}-{SPAN}-01"
            saved = client.post("/config", json={**ADDRESS, "configuration": {"a": 1}})
            read = client.get("/config", params=ADDRESS, headers={"Cache-Control": "no-cache"})
            for bad in (
                "00-0-0-0",
                f"ff-{TRACE}-{SPAN}-01",
                f"00-{'0' * 32}-{SPAN}-01",
                f"00-{TRACE.upper()}-{SPAN}-01",
            ):
                client.get("/configs", params={"tenant": "*", "integration_type": "*"}, headers={"traceparent": bad})
        done = run_confide(
            "config", "list", cwd=tmp_path,
            env={"CONFIDE_URL": service.url, "CONFIDE_TOKEN": token, "TRACEPARENT": f"00-{'9' * 32}-{SPAN}-01"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        events = await asyncio.to_thread(stop_and_load_events, service)
        log = service.log.read_text()
    for reply, operation in ((saved, "request POST /config"), (read, "request GET /config")):
        (request,) = [
            one for one in events if one["request_id"] == reply.headers["request-id"] and one["parent"] is None
        ]
        assert (request["operation"], request["trace_id"], request["parent_span"]) == (operation, TRACE, SPAN)
        children = [one for one in events if one["parent"] == request["id"]]
        assert children
        assert {one["trace_id"] for one in children} == {TRACE}
    listed = [one["trace_id"] for one in events if one["operation"] == "request GET /configs"]
    assert listed == [None] * 4 + ["9" * 32]
    assert f'"trace_id": "{TRACE}"' in log


async def test_events_name_the_user_for_each_way_of_authentication(tmp_path: Path) -> None:
    everything = {"tenant": "*", "integration_type": "*"}
    with run_service(tmp_path) as service:
        with service.client(service.add_admin()) as client:
            client.post("/config", json={**ADDRESS, "configuration": {"a": 1}}).raise_for_status()
            # A read without defaults and a watch authenticate in their own ways.
            client.get("/config", params={**ADDRESS, "defaults": "off"}).raise_for_status()
            client.get("/watch", params={**everything, "after": "0", "wait": "1"}).raise_for_status()
        events = await asyncio.to_thread(stop_and_load_events, service)
    for operation, child in (("request GET /config", "sql configs.read"), ("GET /watch", "sql configs.changes_after")):
        (request,) = [one for one in events if one["operation"].endswith(operation) and one["parent"] is None]
        children = [one for one in events if one["parent"] == request["id"] and one["operation"] == child]
        assert request["user_id"] == 1
        assert {one["user_id"] for one in children} == {1}


async def test_cached_reads_are_sampled_and_have_no_request_id(tmp_path: Path) -> None:
    with run_service(tmp_path, env={"CONFIDE_IO_SAMPLE": "10"}) as service:
        token = service.add_admin()
        with service.client(token) as client:
            tag = client.post("/config", json={**ADDRESS, "configuration": {"a": 1}}).headers["etag"]
            first = client.get("/config", params=ADDRESS, headers={"Cache-Control": "no-cache"})
            cached = [client.get("/config", params=ADDRESS) for _ in range(95)]
            known = [client.get("/config", params=ADDRESS, headers={"If-None-Match": tag}) for _ in range(10)]
        from_cache = [reply for reply in cached + known if "request-id" not in reply.headers]
        events = await asyncio.to_thread(stop_and_load_events, service)
    assert "request-id" in first.headers
    assert len(from_cache) > 90
    sampled = [one for one in events if one["operation"] == "cached GET /config"]
    assert len(sampled) == len(from_cache) // 10
    assert {one["outcome"] for one in sampled} == {"200", "304"}
    for one in sampled:
        assert (one["request_id"], one["parent"], one["user_id"]) == (None, None, 1)
        assert one["amount"] == (len(first.content) if one["outcome"] == "200" else 0)
        assert get_milliseconds(one) > 0
        assert_within(get_milliseconds(one) / 1e3, 1, "a cached read")


@pytest.mark.parametrize(("sinks", "has_histogram"), [("off", False), ("", True)])
async def test_events_can_be_off_or_only_counted(tmp_path: Path, sinks: str, has_histogram: bool) -> None:
    env = {"CONFIDE_IO_SINKS": sinks, "CONFIDE_METRICS": "open"}
    with run_service(tmp_path, env=env) as service, service.client(service.add_admin()) as client:
        client.post("/config", json={**ADDRESS, "configuration": {"a": 1}}).raise_for_status()
        counted = 'confide_io_seconds_count{operation="sql configs.append"}'
        expected = counted if has_histogram else 'confide_requests_total{route="POST /config",status="200"} 1.0'
        page = await asyncio.to_thread(wait_for_metrics, service, re.escape(expected))
    assert (counted in page) == has_histogram
    assert not (service.data / "io").exists()


async def test_two_workers_write_a_file_each_and_count_on_one_page(tmp_path: Path) -> None:
    with run_service(tmp_path, "--workers", "2", env={"CONFIDE_METRICS": "open"}) as service:
        token = service.add_admin()
        saved = 0

        def save_at_both() -> bool:
            nonlocal saved
            with service.client(token) as client:  # a new connection, which either worker may accept
                client.post("/config", json={**ADDRESS, "configuration": {"number": saved}}).raise_for_status()
                saved += 1
            return len({one["worker"] for one in load_events(service) if one["operation"] == SAVED}) == 2

        await asyncio.to_thread(wait_until, save_at_both, "both workers save")
        counted = (
            f'confide_requests_total{{route="POST /config",status="200"}} {saved}.0',
            f'confide_io_seconds_count{{operation="request POST /config"}} {saved}.0',
        )
        await asyncio.to_thread(wait_for_metrics, service, *map(re.escape, counted))
        events = await asyncio.to_thread(stop_and_load_events, service)
    assert sorted(path.name for path in (service.data / "io").glob("*.db")) == ["0.db", "1.db"]
    assert sum(one["operation"] == SAVED for one in events) == saved


async def test_the_event_of_a_stream_lasts_until_the_stream_ends(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        async with Stream(service.port, service.add_admin()):
            await asyncio.sleep(0.7)
        await asyncio.to_thread(wait_for_events, service, "stream GET /watch", 1)
        events = await asyncio.to_thread(stop_and_load_events, service)
    (stream,) = [one for one in events if one["operation"] == "stream GET /watch"]
    assert get_milliseconds(stream) >= 700
    assert_within(get_milliseconds(stream) / 1e3, 10, "a stream of 0.7 s")


async def test_two_sinks_of_one_kind_are_counted_apart(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    env = {"CONFIDE_IO_SINKS": f"file://{tmp_path / 'a'},file://{tmp_path / 'folder'}", "CONFIDE_METRICS": "open"}
    with run_service(tmp_path / "service", env=env) as service:
        with service.client(service.add_admin()) as client:
            for number in range(20):
                client.post("/config", json={**ADDRESS, "configuration": {"number": number}}).raise_for_status()
            page = await asyncio.to_thread(
                wait_for_metrics, service, r'confide_io_sink_failures_total\{sink="file-2"\} [2-9]'
            )
            assert [client.get("/metrics").status_code for _ in range(2)] == [200, 200]
        log = service.log.read_text()
    assert 'confide_io_written_events_total{sink="file-2"} 0.0' in page
    assert 'confide_io_sink_failures_total{sink="file"} 0.0' in page
    assert (tmp_path / "a").stat().st_size > 0
    assert log.count(f"io_sink_failed sink=file-2 reason='{tmp_path / 'folder'}: Is a directory'") == 1
    assert "Traceback" not in log


async def test_malformed_requests_are_counted_and_logged_with_their_id(tmp_path: Path) -> None:
    with run_service(tmp_path, env={"CONFIDE_METRICS": "open"}) as service:
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(b"rubbish\r\n\r\n")
            answer = connection.recv(65_536)
        counted = re.escape('confide_requests_total{route="other",status="400"} 1.0')
        await asyncio.to_thread(wait_for_metrics, service, counted)
        log = service.log.read_text()
    (request_id,) = [line.split(b": ")[1].decode() for line in answer.split(b"\r\n") if line.startswith(b"request-id")]
    assert f'"request_id": "{request_id}"' in log


def test_no_error_and_no_log_quotes_a_password_in_a_setting(tmp_path: Path) -> None:
    """Neither the traceback of another ASGI server nor the library of a sink quotes it."""
    program = "import confide.server.supervisor as s; s.application()"
    for name, value in (("CONFIDE_IO_SINKS", "mysql://x:{}@host/x"), ("CONFIDE_DATABASE", "oracle://x:{}@host/x")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=build_environment(**{name: value.format(make_canary("password"))}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert name.removeprefix("CONFIDE_").lower() in done.stderr.lower()
        assert canaries.find_canary(done.stderr.encode()) is None
    requests: list[str] = []

    def answer(path: str, *_: Any) -> tuple[int, bytes]:
        requests.append(path)
        return 200, b""

    with run_collector(answer) as port:
        sinks = f"otlp+http://user:{make_canary('word')}@127.0.0.1:{port}/v1/traces?key={make_canary('key')}"
        with run_service(tmp_path, env={"CONFIDE_IO_SINKS": sinks}) as service:
            wait_until(lambda: requests, "the sink sends events")
            assert service.stop() == 0
            log = service.log.read_text()
    assert canaries.find_canary(log.encode()) is None


async def test_an_unknown_sink_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    done = run_confide("serve", cwd=tmp_path, env={"CONFIDE_IO_SINKS": f"mysql://x:{make_canary('password')}@host/x"})
    assert done.returncode == 2
    assert "CONFIDE_IO_SINKS: unknown I/O sink" in done.stderr
    assert canaries.find_canary(done.stderr.encode()) is None


async def test_metric_labels_hold_no_tenant_no_login_and_no_unknown_path(tmp_path: Path) -> None:
    key = ConfigKey("hidden-tenant", TYPE)
    with (
        run_service(tmp_path, env={"CONFIDE_METRICS": "open"}) as service,
        service.client(service.add_admin()) as client,
    ):
        client.post("/config", json={**key._asdict(), "configuration": {"a": 1}}).raise_for_status()
        client.get(f"/config/versions/{1}", params=key._asdict()).raise_for_status()
        for number in range(20):
            client.get(f"/made/up/{number}")
        client.request("BREW", "/config")
        client.get("/users/root")
        counted = re.escape('confide_requests_total{route="GET other",status="404"} 20.0')
        page = await asyncio.to_thread(wait_for_metrics, service, counted, "GET /users/")
    assert "hidden-tenant" not in page
    assert "root" not in page
    assert 'route="GET /config/versions/{version}",status="200"' in page
    assert 'route="GET /users/{login}",status="200"' in page
