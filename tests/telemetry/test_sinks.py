"""Each sink writes all fields of an event, keeps its limits and handles the failures of its server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from time import monotonic_ns
from typing import Any

import asyncpg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from confide.context import NO_REQUEST, current_request
from confide.telemetry.events import Batch, EventRecorder, build_documents
from confide.telemetry.sinks import postgresql, sqlite
from confide.telemetry.sinks.registry import SINK_TYPES, SinkType, UnknownSink, build_sinks, require_known_sinks
from confide.telemetry.sinks.sink import IncompleteWrite, Sink
from support.collectors import build_bulk_response, run_collector
from support.distribution import HOSTILE, DistributionServer
from support.postgres import PostgresServer
from support.silent_host import open_silent_port


def build_sink(address: str, folder: Path, *, max_bytes: int = 10**9, days: int = 7) -> Sink:
    (sink,) = build_sinks(address, folder=folder, max_bytes=max_bytes, max_age_days=days)
    return sink


def build_batch(count: int = 3, *, ended_ns: int | None = None) -> Batch:
    """Build events of a request with a trace: its operations, the request, and an operation outside of requests.

    The operations of the request end at `ended_ns`, the other two events now.
    """
    recorder = EventRecorder(worker="host-1", max_events=100_000)
    trace = recorder.begin_request("00112233aabbccdd", trace_id="1" * 32, parent_span="2" * 16)
    trace.user_id = 42
    token = current_request.set(replace(NO_REQUEST, trace=trace))
    began_ns = monotonic_ns() if ended_ns is None else ended_ns - 1_000
    for number in range(count - 2):
        recorder.record("sql configs.read", began_ns, amount=number, ended_ns=ended_ns)
    current_request.reset(token)
    recorder.end_request(trace, "request GET /config", began_ns, outcome="200", amount=230)
    recorder.record("notify", began_ns, outcome="TimeoutError")
    return recorder.take()


def test_sqlite_stores_every_field_in_a_private_file(tmp_path: Path) -> None:
    sink = build_sink("sqlite", tmp_path / "io")
    written = build_batch()
    sink.write(written)
    sink.close()
    with sqlite3.connect(tmp_path / "io" / "0.db") as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM events ORDER BY ended_ns")]
    connection.close()
    assert rows == list(build_documents(written))
    assert (tmp_path / "io").stat().st_mode & 0o077 == 0
    assert (tmp_path / "io" / "0.db").stat().st_mode & 0o077 == 0


def test_each_sqlite_sink_has_its_own_file_and_reuses_the_file_of_a_closed_sink(tmp_path: Path) -> None:
    first, second = build_sink("sqlite", tmp_path), build_sink("sqlite", tmp_path)
    first.write(build_batch())
    second.write(build_batch())
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["0.db", "1.db"]
    first.close()
    third = build_sink("sqlite", tmp_path)
    third.write(build_batch())
    assert not (tmp_path / "2.db").exists()
    second.close()
    third.close()


def test_sqlite_creates_a_new_file_after_an_operator_deleted_it(tmp_path: Path) -> None:
    sink = build_sink("sqlite", tmp_path)
    sink.write(build_batch())
    for path in tmp_path.iterdir():
        path.unlink()
    sink.write(build_batch())
    sink.close()
    assert count_events(tmp_path / "0.db") == 3


def count_events(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])
    finally:
        connection.close()


def test_sqlite_keeps_its_size_limit_and_deletes_the_oldest_events(tmp_path: Path) -> None:
    sink = build_sink("sqlite", tmp_path, max_bytes=400_000)
    last = build_batch()
    for _ in range(40):
        last = build_batch(500)
        sink.write(last)
    sink.close()
    assert (tmp_path / "0.db").stat().st_size < 800_000
    connection = sqlite3.connect(tmp_path / "0.db")
    ids = {row[0] for row in connection.execute("SELECT id FROM events")}
    connection.close()
    assert {event[0] for event in last.events} <= ids
    assert 1_000 < len(ids) < 10_000


def test_sqlite_deletes_events_that_are_too_old(tmp_path: Path) -> None:
    sink = build_sink("sqlite", tmp_path, days=1)
    old_ns = monotonic_ns() - 2 * 86_400 * 10**9
    sink.write(build_batch(100, ended_ns=old_ns))
    sink.write(build_batch(100))
    sink.close()
    # The event of the request and the last one of the old batch have ended just now.
    assert count_events(tmp_path / "0.db") == 102


def test_sqlite_raises_while_its_folder_is_not_writable_and_recovers(tmp_path: Path) -> None:
    (tmp_path / "io").write_text("not a folder")
    sink = build_sink("sqlite", tmp_path / "io")
    with pytest.raises(OSError, match="exist"):
        sink.write(build_batch())
    (tmp_path / "io").unlink()
    sink.write(build_batch())
    sink.close()
    assert count_events(tmp_path / "io" / "0.db") == 3


def test_sqlite_deletes_an_old_file_unless_a_worker_still_holds_it(tmp_path: Path) -> None:
    sinks = [build_sink("sqlite", tmp_path, days=1) for _ in range(3)]
    for sink in sinks:
        sink.write(build_batch())
    for sink in sinks[:2]:
        sink.close()
    old = time.time() - 2 * 86_400
    for name in ("0.db", "2.db"):
        os.utime(tmp_path / name, (old, old))
    # The first file is old and free, the second is free but not old, the third is old but held by a sink.
    fourth = build_sink("sqlite", tmp_path, days=1)
    fourth.write(build_batch())
    assert count_events(tmp_path / "0.db") == 3
    assert (count_events(tmp_path / "1.db"), count_events(tmp_path / "2.db")) == (3, 3)
    for sink in (sinks[2], fourth):
        sink.close()


def test_sqlite_raises_when_too_many_workers_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MAX_WORKERS", 1)
    first, second = build_sink("sqlite", tmp_path), build_sink("sqlite", tmp_path)
    first.write(build_batch())
    with pytest.raises(OSError, match="1 processes"):
        second.write(build_batch())
    first.close()


def test_json_lines_continue_in_a_new_file_after_log_rotation(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "io.jsonl"
    sink = build_sink(f"file://{path}", tmp_path)
    written = build_batch()
    sink.write(written)
    path.rename(path.with_suffix(".1"))
    sink.write(written)
    for file in (path, path.with_suffix(".1")):
        assert [json.loads(line) for line in file.read_text().splitlines()] == list(build_documents(written))
    assert path.stat().st_mode & 0o077 == 0
    sink.close()


def test_a_disk_that_fills_up_within_a_line_damages_only_that_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, sink, path = build_batch(4), build_sink(f"file://{tmp_path / 'io'}", tmp_path), tmp_path / "io"
    lines = [json.dumps(document) + "\n" for document in build_documents(written)]
    free_bytes = [len(lines[0]) + len(lines[1]) + 10]
    write = os.write

    def write_to_full_disk(file: int, data: bytes) -> int:
        if free_bytes and not free_bytes[0]:
            raise OSError(28, "No space left on device")
        written = data[: free_bytes[0]] if free_bytes else data
        if free_bytes:
            free_bytes[0] -= len(written)
        return write(file, written)

    monkeypatch.setattr(os, "write", write_to_full_disk)
    with pytest.raises(IncompleteWrite) as raised:
        sink.write(written)
    assert raised.value.retryable == written.events[2:]
    free_bytes.clear()
    sink.write(written._replace(events=raised.value.retryable))
    found = path.read_text().splitlines(keepends=True)
    assert [line for line in found if line in lines] == lines
    assert len(found) == 5


def test_json_lines_are_written_to_standard_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = build_batch()
    build_sink("stdout", tmp_path).write(written)
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == list(build_documents(written))


def test_postgresql_stores_every_field_and_deletes_old_events(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    sink = build_sink(url, tmp_path, days=1)
    assert isinstance(sink, postgresql.PostgresqlSink)
    old_ns = monotonic_ns() - 2 * 86_400 * 10**9
    sink.write(build_batch(100, ended_ns=old_ns))
    sink._deleted_at = -postgresql.DELETE_EVERY_SECONDS
    written = build_batch()
    sink.write(written)

    async def rows() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(url)
        try:
            return [dict(row) for row in await connection.fetch("SELECT * FROM confide_io ORDER BY ended_at, id")]
        finally:
            await connection.close()

    found = asyncio.run(rows())
    sink.close()
    assert len(found) == 2 + 3
    assert [row for row in found if row["id"] in {event[0] for event in written.events}] == list(
        build_documents(written)
    )


def test_postgresql_stores_events_in_a_database_with_hostile_settings(
    tmp_path: Path, distribution: DistributionServer
) -> None:
    url = distribution.new_database()
    distribution.set_for_database(url, HOSTILE)
    sink = build_sink(url, tmp_path)
    assert isinstance(sink, postgresql.PostgresqlSink)
    sink.write(build_batch())
    # A write does not find the connection closed: the sink would send the events again, and health would report it.
    ((closes_idle,),) = asyncio.run(
        distribution.fetch("SELECT current_setting('idle_session_timeout') <> '0'", database=url.rsplit("/", 1)[1])
    )
    assert closes_idle
    connection = sink._connection
    assert connection is not None
    assert sink._loop.run_until_complete(connection.fetchval("SHOW idle_session_timeout")) == "0"
    sink.write(build_batch())
    sink.close()
    ((count,),) = asyncio.run(distribution.fetch("SELECT count(*) FROM confide_io", database=url.rsplit("/", 1)[1]))
    assert count == 2 * len(build_batch().events)


def test_postgresql_connects_again_after_a_lost_connection(tmp_path: Path, postgres: PostgresServer) -> None:
    sink = build_sink(postgres.new_database(), tmp_path)
    assert isinstance(sink, postgresql.PostgresqlSink)
    sink.write(build_batch())
    assert sink._connection is not None
    sink._connection.terminate()
    sink.write(build_batch())
    sink.close()


def test_postgresql_writes_to_the_host_that_answers(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with open_silent_port() as silent:
        several = url.replace(f"@{postgres.host}", f"@127.0.0.1:{silent},{postgres.host}")
        (sink,) = build_sinks(f"{several},", folder=tmp_path, max_bytes=1, max_age_days=1)
        sink.write(build_batch())
    assert isinstance(sink, postgresql.PostgresqlSink)
    assert sink._connection is not None
    sink.close()


def test_the_hosts_of_an_address_are_not_sinks_of_their_own(tmp_path: Path) -> None:
    addresses = "sqlite, postgresql://user@a:1,b,[::1]:2/name ,postgres://c,stdout"
    sinks = build_sinks(addresses, folder=tmp_path, max_bytes=1, max_age_days=1)
    assert [sink.name for sink in sinks] == ["sqlite", "postgresql", "postgresql", "stdout"]
    for sink in sinks:
        sink.close()
    with pytest.raises(ValueError, match="port"):
        require_known_sinks("postgresql://a,b:c/name")


@pytest.mark.parametrize("name", ["elasticsearch", "opensearch"])
def test_elasticsearch_and_opensearch_get_a_document_id_per_event_and_report_each_status(
    tmp_path: Path, name: str
) -> None:
    requests: list[tuple[str, list[Any], dict[str, str]]] = []

    def answer(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        requests.append((path, [json.loads(line) for line in body.splitlines()], headers))
        # One document exists already, one exceeds a rate limit, one is invalid.
        return 200, build_bulk_response(body, lambda number: {1: 409, 2: 429, 3: 400}.get(number, 201))

    with run_collector(answer) as port:
        sink = build_sink(f"{name}+http://user:p%40ss@127.0.0.1:{port}/io-events", tmp_path)
        written = build_batch(6)
        with pytest.raises(IncompleteWrite) as raised:
            sink.write(written)
        sink.close()
    ((path, lines, headers),) = requests
    assert path == "/io-events/_bulk"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert headers["Content-Type"] == "application/x-ndjson"
    assert [line["create"]["_id"] for line in lines[::2]] == [f"{event[0]:x}" for event in written.events]
    for line, document in zip(lines[1::2], build_documents(written), strict=True):
        assert line == {**document, "@timestamp": document["began_at"] // 1_000}
    assert (raised.value.retryable, raised.value.rejected, str(raised.value)) == ([written.events[2]], 1, "1 with 400")


@pytest.mark.parametrize(
    ("status", "error", "rejected"),
    [(503, ConnectionError, None), (429, ConnectionError, None), (401, IncompleteWrite, 3), (413, IncompleteWrite, 3)],
)
def test_http_errors_are_either_retryable_or_counted_as_rejected(
    tmp_path: Path, status: int, error: type[Exception], rejected: int | None
) -> None:
    with run_collector(lambda *_: (status, b"error")) as port:
        for address in (f"elasticsearch+http://127.0.0.1:{port}", f"otlp+http://127.0.0.1:{port}"):
            sink = build_sink(address, tmp_path)
            with pytest.raises(error) as raised:
                sink.write(build_batch())
            sink.close()
            assert getattr(raised.value, "rejected", None) == rejected


def test_otlp_sends_spans_in_the_trace_of_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=core%20one,broken")
    requests: list[tuple[str, ExportTraceServiceRequest, dict[str, str]]] = []

    def answer(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        requests.append((path, ExportTraceServiceRequest.FromString(body), headers))
        return 200, b""

    with run_collector(answer) as port:
        sink = build_sink(f"otlp+http://127.0.0.1:{port}", tmp_path)
        written = build_batch()
        sink.write(written)
        sink.close()
    ((path, request, headers),) = requests
    assert (path, headers["x-team"], headers["Content-Type"]) == ("/v1/traces", "core one", "application/x-protobuf")
    (resource,) = request.resource_spans
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes}["service.name"] == "confide"
    spans = resource.scope_spans[0].spans
    operation, server_request, separate = spans
    assert [span.name for span in spans] == ["sql configs.read", "request GET /config", "notify"]
    assert server_request.trace_id.hex() == operation.trace_id.hex() == "1" * 32
    assert server_request.parent_span_id.hex() == "2" * 16
    assert operation.parent_span_id == server_request.span_id
    assert separate.parent_span_id == b""
    assert len(separate.trace_id) == 16
    assert [span.kind for span in spans] == [3, 2, 3]  # client, server, client
    assert [span.status.code for span in spans] == [0, 0, 2]
    now = time.time_ns()
    assert all(now - 60 * 10**9 < span.start_time_unix_nano <= span.end_time_unix_nano <= now for span in spans)


def test_otlp_counts_the_spans_that_the_server_rejects(tmp_path: Path) -> None:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 2
    with run_collector(lambda *_: (200, response.SerializeToString())) as port:
        sink = build_sink(f"otlp+http://127.0.0.1:{port}", tmp_path)
        with pytest.raises(IncompleteWrite) as raised:
            sink.write(build_batch())
        sink.close()
    assert (raised.value.retryable, raised.value.rejected) == ([], 2)


def test_a_list_of_addresses_builds_its_sinks_in_order(tmp_path: Path) -> None:
    sinks = build_sinks("sqlite, stdout,file:///tmp/x ,", folder=tmp_path, max_bytes=1, max_age_days=1)
    assert [sink.name for sink in sinks] == ["sqlite", "stdout", "file"]
    assert build_sinks("", folder=tmp_path, max_bytes=1, max_age_days=1) == []


@pytest.mark.parametrize("sink_type", SINK_TYPES, ids=lambda sink_type: sink_type.form)
def test_the_documented_form_of_each_registered_sink_is_an_address_that_builds_it(
    tmp_path: Path, sink_type: SinkType
) -> None:
    sink = build_sink(sink_type.form.replace("(s)", ""), tmp_path)
    assert sink_type.form.startswith(sink.name)
    assert callable(sink.write)
    sink.close()


@pytest.mark.parametrize(
    "address",
    ["mysql://secret@host/x", "sqlite:///elsewhere", "file://", "elasticsearch://host", "otlp+ftp://host", "otlp+http://"],
)  # fmt: skip
def test_an_unknown_address_raises_an_error_that_does_not_quote_it(address: str) -> None:
    with pytest.raises(UnknownSink) as raised:
        require_known_sinks(f"sqlite,{address}")
    assert "secret" not in str(raised.value)
    assert "postgresql://" in str(raised.value)
