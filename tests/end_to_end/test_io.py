"""I/O events of the real service: they agree with what callers saw, name what is slow, and hold no secret."""

from __future__ import annotations

import asyncio
import json
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

from confide.names import Key
from support import canaries
from support.app import TYPE
from support.canaries import LEAKS, make_canary
from support.collectors import build_bulk_response, run_collector, run_silent_server
from support.postgres import PostgresServer
from support.processes import FAULTY_SERVICE, Service, build_environment, run_confide, run_service
from support.proxy import Proxy
from support.streams import Stream

ADDRESS = {"tenant": "acme", "integration_type": TYPE}
SAVED = "request POST /config"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def events_of(service: Service) -> list[dict[str, Any]]:
    """Everything in the files, by all workers."""
    found = []
    for path in sorted((service.data / "io").glob("*.db")):
        connection = sqlite3.connect(path)
        connection.row_factory = sqlite3.Row
        with suppress(sqlite3.OperationalError):  # the file is just being made
            found += [dict(row) for row in connection.execute("SELECT * FROM events ORDER BY ended_ns")]
        connection.close()
    return found


def arrived(service: Service, operation: str, count: int) -> None:
    """Wait until that many events of an operation were written."""
    deadline = time.monotonic() + 60
    while (came := sum(one["operation"] == operation for one in events_of(service))) < count:
        assert time.monotonic() < deadline, f"{came} of {count} events of {operation} came"
        time.sleep(0.05)


def settled(service: Service, operation: str, count: int) -> list[dict[str, Any]]:
    """As `events_of`, of what was done for somebody, once that many of an operation were written and no more came."""
    arrived(service, operation, count)
    time.sleep(1)
    return [one for one in events_of(service) if one["request_id"] or one["user_id"]]


async def shown(service: Service, *lines: str) -> str:
    """The page of metrics once what these patterns say is on it, or as it is when that does not come."""
    deadline = time.monotonic() + 15
    while True:
        with service.client() as client:
            page = client.get("/metrics").text
        if all(re.search(line, page) for line in lines) or time.monotonic() > deadline:
            return page
        await asyncio.sleep(0.3)


class Caller:
    """Saves over one plain connection and takes the time: a client that costs next to nothing."""

    def __init__(self, service: Service, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", service.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._token = token

    def save(self, configuration: Any) -> tuple[str, float]:
        """Returns the id of the request and the milliseconds that it took."""
        body = json.dumps({**ADDRESS, "configuration": configuration}).encode()
        head = (
            f"POST /config HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        began = time.perf_counter()
        self._socket.sendall(head + body)
        answer = self._answer()
        took = (time.perf_counter() - began) * 1e3
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return answer.split(b"request-id: ")[1].split(b"\r\n")[0].decode(), took

    def _answer(self) -> bytes:
        """The head and the body come in pieces."""
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            answer += self._socket.recv(65_536)
        return answer

    def close(self) -> None:
        self._socket.close()


async def test_events_agree_with_what_the_caller_saw(tmp_path: Path, database: str | None) -> None:
    with run_service(tmp_path, database=database) as service:
        caller = Caller(service, service.add_admin())
        rounds = [[caller.save({"number": part * 50 + number}) for number in range(50)] for part in range(10)]
        caller.close()
        events = await asyncio.to_thread(settled, service, SAVED, 500)
    requests = {one["request_id"]: one for one in events if one["operation"] == SAVED}
    seen = {request_id: took for part in rounds for request_id, took in part}
    assert len([one for one in events if one["operation"] == SAVED]) == 500
    assert requests.keys() == seen.keys()
    for request_id, took in seen.items():
        assert milliseconds(requests[request_id]) <= took
    # A busy machine can only add to what the caller saw: so the quietest of the rounds counts.
    assert (
        min(
            median(took for _, took in part) - median(milliseconds(requests[id_]) for id_, _ in part) for part in rounds
        )
        <= 1
    )
    whole = {one["id"]: one for one in requests.values()}
    done_for = [one for one in events if one["parent"] in whole]
    assert {one["request_id"] for one in done_for} == seen.keys()
    for one in done_for:
        request = whole[one["parent"]]
        assert request["began_ns"] <= one["began_ns"] <= one["ended_ns"] <= request["ended_ns"]
        # Whose token it is, is known once it was looked up.
        whose = None if one["operation"] == "sql tokens.read" else 1
        assert (one["request_id"], one["user_id"]) == (request["request_id"], whose)
    # The first save makes the tenant's key as well.
    last = {request_id for request_id, _ in rounds[-1]}
    appended = {one["operation"] for one in done_for if one["request_id"] in last}
    assert "sql configs.append" in appended
    assert ("commit" in appended) == (database is None)


def milliseconds(event: dict[str, Any]) -> float:
    return float(event["ended_ns"] - event["began_ns"]) / 1e6


async def test_a_slow_database_is_found_by_the_report_which_names_the_operation(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.new_database()
    proxy = Proxy(postgres.port, host=postgres.host)
    await proxy.start()
    behind = postgres.build_proxied_url(url, proxy.port)
    assert behind != url

    def slow_down_and_save() -> Any:
        with run_service(tmp_path, database=behind) as service:
            caller = Caller(service, service.add_admin())
            for number in range(20):
                caller.save({"quick": number})
            proxy.delay_seconds = 0.02
            began = datetime.now(UTC).isoformat()
            for number in range(20):
                caller.save({"slow": number})
            proxy.delay_seconds = 0.0
            caller.close()
            settled(service, SAVED, 40)
            reports = []
            for args in (
                ("--op", "sql configs.*"),
                ("--op", "sql configs.*", "--since", began),
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
    # Half of all saves were quick; all of those since then were slow, and it is the statements that were.
    assert slow_by_name["sql configs.append"]["p50_ms"] >= 20
    assert slow_by_name["sql configs.read"]["p50_ms"] >= 20
    assert by_name["sql configs.append"]["count"] == 40
    slowest = next(one for one in whole["slowest"] if one["operation"] == "request POST /config")
    named = {one["operation"]: one["took"] / 1e6 for one in slowest["operations"]}
    assert named["sql configs.append"] >= 20
    assert sum(named.values()) > 0.8 * slowest["took"] / 1e6


async def test_sinks_that_hang_refuse_no_request_and_lose_nothing_but_their_own_events(tmp_path: Path) -> None:
    with run_silent_server() as silent:
        fifo = tmp_path / "fifo"
        os_mkfifo(fifo)
        sinks = (
            f"sqlite,elasticsearch+http://127.0.0.1:{silent},otlp+http://127.0.0.1:{silent},"
            f"postgresql://x@127.0.0.1:{silent}/x,file://{fifo}"
        )
        env = {"CONFIDE_IO_SINKS": sinks, "CONFIDE_IO_QUEUE": "500", "CONFIDE_METRICS": "open"}
        with run_service(tmp_path, env=env) as service:
            caller = Caller(service, service.add_admin())
            # No more at once than the queues hold until they are emptied: those that hang, and no other, overflow.
            for part in range(1, 31):
                for number in range(10):
                    caller.save({"part": part, "number": number})  # which must be answered with 200
                await asyncio.to_thread(arrived, service, SAVED, part * 10)
            caller.close()
            events = await asyncio.to_thread(settled, service, SAVED, 300)
            with service.client() as client:
                await asyncio.sleep(1.1)
                page = client.get("/metrics").text
            began = time.monotonic()
            assert await asyncio.to_thread(service.stop) == 0
            assert time.monotonic() - began < 10
    assert sum(one["operation"] == SAVED for one in events) == 300
    dropped = {
        line.split('"')[1]: float(line.split()[-1])
        for line in page.splitlines()
        if line.startswith("confide_io_dropped_events_total")
    }
    assert dropped.keys() == {"events", "sqlite", "elasticsearch", "otlp", "postgresql", "file"}
    assert dropped["events"] == dropped["sqlite"] == 0
    for name in ("elasticsearch", "otlp", "postgresql", "file"):
        assert dropped[name] > 500, name


def os_mkfifo(path: Path) -> None:
    """A file that whoever opens it to write waits on, for nobody reads."""
    import os  # noqa: PLC0415 - only here

    os.mkfifo(path)


@contextmanager
def collected(folder: Path) -> Iterator[str]:
    """Two collectors that keep every byte they are sent in files; yields their addresses."""
    folder.mkdir()

    def keep(name: str) -> Any:
        def answer(_path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
            with (folder / name).open("ab") as file:
                file.write(body + json.dumps(headers).encode())
            return 200, build_bulk_response(body, lambda _: 201) if name == "bulk" else b""

        return answer

    with run_collector(keep("bulk")) as bulk, run_collector(keep("otlp")) as otlp:
        yield f"elasticsearch+http://127.0.0.1:{bulk},otlp+http://127.0.0.1:{otlp}"


def use_everything(service: Service) -> None:
    """Canaries wherever a caller may put something: bodies, tokens, passwords, headers, queries."""
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
    with collected(tmp_path / "collected") as addresses:
        lines = tmp_path / "events.jsonl"
        sinks = f"sqlite,stdout,file://{lines},{url},{addresses}"
        with run_service(tmp_path / "service", env={"CONFIDE_IO_SINKS": sinks, "CONFIDE_IO_SAMPLE": "1"}) as service:
            await asyncio.to_thread(use_everything, service)
            await asyncio.sleep(1)
            with service.client(service.login()) as client:
                (tmp_path / "metrics.txt").write_text(client.get("/metrics").text)
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


async def test_an_event_that_quoted_a_parameter_would_be_found(tmp_path: Path) -> None:
    """A deliberate fault of the search above."""
    env = {"FAULT": "arguments-in-operations"}
    with run_service(tmp_path / LEAKS, program=FAULTY_SERVICE, env=env) as service:
        token = service.add_admin()
        with service.client(token) as client:
            client.get("/configs", params={"tenant": make_canary("tenant")[:20], "integration_type": "*"})
        await asyncio.sleep(0.5)
        assert await asyncio.to_thread(service.stop) == 0
    _, found = canaries.search((service.data / "io").iterdir())
    assert found


async def test_a_callers_trace_is_taken_in_and_passed_on(tmp_path: Path) -> None:
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
        events = await asyncio.to_thread(settled, service, "request GET /configs", 5)
        log = service.log.read_text()
    for reply, operation in ((saved, "request POST /config"), (read, "request GET /config")):
        (whole,) = [one for one in events if one["request_id"] == reply.headers["request-id"] and one["parent"] is None]
        assert (whole["operation"], whole["trace_id"], whole["parent_span"]) == (operation, TRACE, SPAN)
        within = [one for one in events if one["parent"] == whole["id"]]
        assert within
        assert {one["trace_id"] for one in within} == {TRACE}
    listed = [one["trace_id"] for one in events if one["operation"] == "request GET /configs"]
    assert listed == [None] * 4 + ["9" * 32]
    assert f'"trace_id": "{TRACE}"' in log


async def test_whatever_way_a_caller_was_recognised_what_is_done_for_them_says_so(tmp_path: Path) -> None:
    everything = {"tenant": "*", "integration_type": "*"}
    with run_service(tmp_path) as service:
        with service.client(service.add_admin()) as client:
            client.post("/config", json={**ADDRESS, "configuration": {"a": 1}}).raise_for_status()
            # With its defaults off a read is not a plain one; a watch recognises its caller by itself.
            client.get("/config", params={**ADDRESS, "defaults": "off"}).raise_for_status()
            client.get("/watch", params={**everything, "after": "0", "wait": "1"}).raise_for_status()
        events = await asyncio.to_thread(settled, service, "stream GET /watch", 1)
    for operation, within in (("request GET /config", "sql configs.read"), ("GET /watch", "sql configs.changes_after")):
        (whole,) = [one for one in events if one["operation"].endswith(operation) and one["parent"] is None]
        done_for = [one for one in events if one["parent"] == whole["id"] and one["operation"] == within]
        assert whole["user_id"] == 1
        assert {one["user_id"] for one in done_for} == {1}


async def test_one_in_so_many_cached_reads_is_noted_and_none_has_an_id(tmp_path: Path) -> None:
    with run_service(tmp_path, env={"CONFIDE_IO_SAMPLE": "10"}) as service:
        token = service.add_admin()
        with service.client(token) as client:
            tag = client.post("/config", json={**ADDRESS, "configuration": {"a": 1}}).headers["etag"]
            first = client.get("/config", params=ADDRESS, headers={"Cache-Control": "no-cache"})
            cached = [client.get("/config", params=ADDRESS) for _ in range(95)]
            known = [client.get("/config", params=ADDRESS, headers={"If-None-Match": tag}) for _ in range(10)]
        from_memory = [reply for reply in cached + known if "request-id" not in reply.headers]
        events = await asyncio.to_thread(settled, service, "cached GET /config", len(from_memory) // 10)
    assert "request-id" in first.headers
    assert len(from_memory) > 90
    sampled = [one for one in events if one["operation"] == "cached GET /config"]
    assert len(sampled) == len(from_memory) // 10
    assert {one["outcome"] for one in sampled} == {"200", "304"}
    for one in sampled:
        assert (one["request_id"], one["parent"], one["user_id"]) == (None, None, 1)
        assert one["amount"] == (len(first.content) if one["outcome"] == "200" else 0)
        assert 0 < milliseconds(one) < 1_000


@pytest.mark.parametrize(("sinks", "has_histogram"), [("off", False), ("", True)])
async def test_events_may_be_switched_off_or_only_be_counted(tmp_path: Path, sinks: str, has_histogram: bool) -> None:
    env = {"CONFIDE_IO_SINKS": sinks, "CONFIDE_METRICS": "open"}
    with run_service(tmp_path, env=env) as service, service.client(service.add_admin()) as client:
        client.post("/config", json={**ADDRESS, "configuration": {"a": 1}}).raise_for_status()
        counted = 'confide_io_seconds_count{operation="sql configs.append"}'
        if has_histogram:
            page = await shown(service, re.escape(counted))
        else:
            await asyncio.sleep(1)
            page = client.get("/metrics").text
    assert (counted in page) == has_histogram
    assert not (service.data / "io").exists()


async def test_two_workers_write_a_file_each_and_count_on_one_page(tmp_path: Path) -> None:
    with run_service(tmp_path, "--workers", "2", env={"CONFIDE_METRICS": "open"}) as service:
        token = service.add_admin()
        saved = 0
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with service.client(token) as client:  # another connection, perhaps another worker
                client.post("/config", json={**ADDRESS, "configuration": {"number": saved}}).raise_for_status()
                saved += 1
            workers = {one["worker"] for one in events_of(service) if one["operation"] == SAVED}
            if len(workers) == 2:
                break
        events = await asyncio.to_thread(settled, service, SAVED, saved)
        counted = (
            f'confide_requests_total{{route="POST /config",status="200"}} {saved}.0',
            f'confide_io_seconds_count{{operation="request POST /config"}} {saved}.0',
        )
        page = await shown(service, *map(re.escape, counted))
    assert sorted(path.name for path in (service.data / "io").glob("*.db")) == ["0.db", "1.db"]
    assert sum(one["operation"] == SAVED for one in events) == saved
    assert [line in page for line in counted] == [True, True]


async def test_a_stream_lasts_until_it_is_ended_however_long_it_was_silent(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        async with Stream(service.port, service.add_admin()):
            await asyncio.sleep(0.7)
        events = await asyncio.to_thread(settled, service, "stream GET /watch", 1)
    (stream,) = [one for one in events if one["operation"] == "stream GET /watch"]
    assert 700 <= milliseconds(stream) < 10_000


async def test_two_sinks_of_one_kind_are_counted_apart(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    env = {"CONFIDE_IO_SINKS": f"file://{tmp_path / 'a'},file://{tmp_path / 'folder'}", "CONFIDE_METRICS": "open"}
    with run_service(tmp_path / "service", env=env) as service:
        with service.client(service.add_admin()) as client:
            for number in range(20):
                client.post("/config", json={**ADDRESS, "configuration": {"number": number}}).raise_for_status()
            page = await shown(service, r'confide_io_sink_failures_total\{sink="file-2"\} [2-9]')
            assert [client.get("/metrics").status_code for _ in range(2)] == [200, 200]
        log = service.log.read_text()
    assert re.search(r'confide_io_sink_failures_total\{sink="file-2"\} [2-9]', page)
    assert 'confide_io_written_events_total{sink="file-2"} 0.0' in page
    assert 'confide_io_sink_failures_total{sink="file"} 0.0' in page
    assert (tmp_path / "a").stat().st_size > 0
    assert log.count("io_sink_failed sink=file-2 reason=IsADirectoryError") == 1
    assert "Traceback" not in log


async def test_requests_that_the_protocol_refuses_are_counted_and_named(tmp_path: Path) -> None:
    with run_service(tmp_path, env={"CONFIDE_METRICS": "open"}) as service:
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(b"rubbish\r\n\r\n")
            answer = connection.recv(65_536)
        with service.client() as client:
            page = client.get("/metrics").text
        log = service.log.read_text()
    (request_id,) = [line.split(b": ")[1].decode() for line in answer.split(b"\r\n") if line.startswith(b"request-id")]
    assert f'"request_id": "{request_id}"' in log
    assert 'confide_requests_total{route="other",status="400"} 1.0' in page


def test_a_password_in_a_setting_is_quoted_by_nobody(tmp_path: Path) -> None:
    """Neither by another server, whose trace shows the whole error, nor by the library that a sink uses."""
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
    with run_collector(lambda *_: (200, b"")) as port:
        sinks = f"otlp+http://user:{make_canary('word')}@127.0.0.1:{port}/v1/traces?key={make_canary('key')}"
        with run_service(tmp_path, env={"CONFIDE_IO_SINKS": sinks}) as service:
            time.sleep(0.5)
            log = service.log.read_text()
    assert canaries.find_canary(log.encode()) is None


async def test_a_sink_that_there_is_none_of_ends_the_start_in_one_sentence(tmp_path: Path) -> None:
    done = run_confide("serve", cwd=tmp_path, env={"CONFIDE_IO_SINKS": f"mysql://x:{make_canary('password')}@host/x"})
    assert done.returncode == 2
    assert "CONFIDE_IO_SINKS: unknown I/O sink" in done.stderr
    assert canaries.find_canary(done.stderr.encode()) is None


async def test_labels_of_metrics_name_no_tenant_no_login_and_no_made_up_path(tmp_path: Path) -> None:
    key = Key("tenant-nobody-must-see", TYPE)
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
        await asyncio.sleep(0.3)
        page = client.get("/metrics").text
    assert "tenant-nobody-must-see" not in page
    assert "root" not in page
    assert 'confide_requests_total{route="GET other",status="404"} 20.0' in page
    assert 'route="GET /config/versions/{version}",status="200"' in page
    assert 'route="GET /users/{login}",status="200"' in page
