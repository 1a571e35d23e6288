"""Each sink writes what an event holds, keeps to its limits and reads what it is told of failures."""

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
from confide.telemetry.events import Batch, Event, EventRecorder, build_documents
from confide.telemetry.sinks import postgresql, sqlite
from confide.telemetry.sinks.registry import UnknownSink, build_sinks, require_known_sinks
from confide.telemetry.sinks.sink import IncompleteWrite, Sink
from support.collectors import bulk_answer, collector
from support.postgres import PostgresServer


def one(address: str, folder: Path, *, max_bytes: int = 10**9, days: int = 7) -> Sink:
    (sink,) = build_sinks(address, folder=folder, max_bytes=max_bytes, max_age_days=days)
    return sink


def batch(count: int = 3, *, ended: int | None = None) -> Batch:
    """A request of a caller's trace, with what was done for it, and something done for nobody."""
    recorder = EventRecorder(worker="host-1", max_events=100_000)
    request = recorder.begin_request("00112233aabbccdd", trace_id="1" * 32, parent_span="2" * 16)
    request.user_id = 42
    kept = current_request.set(replace(NO_REQUEST, trace=request))
    began = monotonic_ns() if ended is None else ended - 1_000
    for number in range(count - 2):
        recorder.record("sql configs.read", began, amount=number, ended_ns=ended)
    current_request.reset(kept)
    recorder.end_request(request, "request GET /config", began, outcome="200", amount=230)
    recorder.record("notify", began, outcome="TimeoutError")
    return recorder.take()


def test_sqlite_keeps_every_field_in_a_file_of_the_worker(tmp_path: Path) -> None:
    sink = one("sqlite", tmp_path / "io")
    written = batch()
    sink.write(written)
    sink.close()
    with sqlite3.connect(tmp_path / "io" / "0.db") as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM events ORDER BY ended_ns")]
    connection.close()
    assert rows == list(build_documents(written))
    assert (tmp_path / "io").stat().st_mode & 0o077 == 0
    assert (tmp_path / "io" / "0.db").stat().st_mode & 0o077 == 0


def test_sqlite_gives_each_process_a_file_of_its_own_and_a_freed_one_again(tmp_path: Path) -> None:
    first, second = one("sqlite", tmp_path), one("sqlite", tmp_path)
    first.write(batch())
    second.write(batch())
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["0.db", "1.db"]
    first.close()
    third = one("sqlite", tmp_path)
    third.write(batch())
    assert not (tmp_path / "2.db").exists()
    second.close()
    third.close()


def test_sqlite_begins_a_new_file_where_somebody_removed_it(tmp_path: Path) -> None:
    sink = one("sqlite", tmp_path)
    sink.write(batch())
    for path in tmp_path.iterdir():
        path.unlink()
    sink.write(batch())
    sink.close()
    assert count(tmp_path / "0.db") == 3


def count(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])
    finally:
        connection.close()


def test_sqlite_keeps_to_its_size_and_drops_the_oldest(tmp_path: Path) -> None:
    sink = one("sqlite", tmp_path, max_bytes=400_000)
    last = batch()
    for _ in range(40):
        last = batch(500)
        sink.write(last)
    sink.close()
    assert (tmp_path / "0.db").stat().st_size < 800_000
    connection = sqlite3.connect(tmp_path / "0.db")
    ids = {row[0] for row in connection.execute("SELECT id FROM events")}
    connection.close()
    assert {event[0] for event in last.events} <= ids
    assert 1_000 < len(ids) < 10_000


def test_sqlite_keeps_to_its_age(tmp_path: Path) -> None:
    sink = one("sqlite", tmp_path, days=1)
    old = monotonic_ns() - 2 * 86_400 * 10**9
    sink.write(batch(100, ended=old))
    sink.write(batch(100))
    sink.close()
    # The request's own event and the lonely one end when they are noted.
    assert count(tmp_path / "0.db") == 102


def test_sqlite_that_cannot_be_written_says_so_and_goes_on_later(tmp_path: Path) -> None:
    (tmp_path / "io").write_text("not a folder")
    sink = one("sqlite", tmp_path / "io")
    with pytest.raises(OSError, match="exist"):
        sink.write(batch())
    (tmp_path / "io").unlink()
    sink.write(batch())
    sink.close()
    assert count(tmp_path / "io" / "0.db") == 3


def test_what_nobody_writes_any_more_is_removed_when_it_is_too_old(tmp_path: Path) -> None:
    sinks = [one("sqlite", tmp_path, days=1) for _ in range(3)]
    for sink in sinks:
        sink.write(batch())
    for sink in sinks[:2]:
        sink.close()
    old = time.time() - 2 * 86_400
    for name in ("0.db", "2.db"):
        os.utime(tmp_path / name, (old, old))
    # The first is old and free, the second is free and not old, the third is old and somebody's.
    fourth = one("sqlite", tmp_path, days=1)
    fourth.write(batch())
    assert count(tmp_path / "0.db") == 3
    assert (count(tmp_path / "1.db"), count(tmp_path / "2.db")) == (3, 3)
    for sink in (sinks[2], fourth):
        sink.close()


def test_all_names_taken_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MAX_WORKERS", 1)
    first, second = one("sqlite", tmp_path), one("sqlite", tmp_path)
    first.write(batch())
    with pytest.raises(OSError, match="1 processes"):
        second.write(batch())
    first.close()


def test_json_lines_go_to_a_file_that_may_be_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "io.jsonl"
    sink = one(f"file://{path}", tmp_path)
    written = batch()
    sink.write(written)
    path.rename(path.with_suffix(".1"))
    sink.write(written)
    for file in (path, path.with_suffix(".1")):
        assert [json.loads(line) for line in file.read_text().splitlines()] == list(build_documents(written))
    assert path.stat().st_mode & 0o077 == 0
    sink.close()


def test_a_disk_that_is_full_in_the_middle_of_a_line_spoils_that_line_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, sink, path = batch(4), one(f"file://{tmp_path / 'io'}", tmp_path), tmp_path / "io"
    lines = [json.dumps(document) + "\n" for document in build_documents(written)]
    room = [len(lines[0]) + len(lines[1]) + 10]
    write = os.write

    def full(file: int, data: bytes) -> int:
        if room and not room[0]:
            raise OSError(28, "No space left on device")
        taken = data[: room[0]] if room else data
        if room:
            room[0] -= len(taken)
        return write(file, taken)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(IncompleteWrite) as partly:
        sink.write(written)
    assert partly.value.retryable == written.events[2:]
    room.clear()
    sink.write(written._replace(events=partly.value.retryable))
    whole = path.read_text().splitlines(keepends=True)
    assert [line for line in whole if line in lines] == lines
    assert len(whole) == 5


def test_json_lines_go_to_standard_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = batch()
    one("stdout", tmp_path).write(written)
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == list(build_documents(written))


def test_postgresql_takes_every_field_and_forgets_what_is_old(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    sink = one(url, tmp_path, days=1)
    assert isinstance(sink, postgresql.PostgresqlSink)
    old = monotonic_ns() - 2 * 86_400 * 10**9
    sink.write(batch(100, ended=old))
    sink._deleted_at = -postgresql.DELETE_EVERY_SECONDS
    written = batch()
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


def test_postgresql_that_went_away_is_connected_to_anew(tmp_path: Path, postgres: PostgresServer) -> None:
    sink = one(postgres.new_database(), tmp_path)
    assert isinstance(sink, postgresql.PostgresqlSink)
    sink.write(batch())
    assert sink._connection is not None
    sink._connection.terminate()
    sink.write(batch())
    sink.close()


@pytest.mark.parametrize("name", ["elasticsearch", "opensearch"])
def test_bulk_sends_each_event_under_an_id_of_its_own_and_reads_what_became_of_it(tmp_path: Path, name: str) -> None:
    asked: list[tuple[str, list[Any], dict[str, str]]] = []

    def answer(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        asked.append((path, [json.loads(line) for line in body.splitlines()], headers))
        # One is there already, one comes too fast, one will never be taken.
        return 200, bulk_answer(body, lambda number: {1: 409, 2: 429, 3: 400}.get(number, 201))

    with collector(answer) as port:
        sink = one(f"{name}+http://user:p%40ss@127.0.0.1:{port}/io-events", tmp_path)
        written = batch(6)
        with pytest.raises(IncompleteWrite) as partly:
            sink.write(written)
        sink.close()
    ((path, lines, headers),) = asked
    assert path == "/io-events/_bulk"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert headers["Content-Type"] == "application/x-ndjson"
    assert [line["create"]["_id"] for line in lines[::2]] == [f"{event[0]:x}" for event in written.events]
    for line, document in zip(lines[1::2], build_documents(written), strict=True):
        assert line == {**document, "@timestamp": document["began_at"] // 1_000}
    assert (partly.value.retryable, partly.value.rejected, str(partly.value)) == ([written.events[2]], 1, "1 with 400")


@pytest.mark.parametrize(
    ("status", "error", "rejected"),
    [(503, ConnectionError, None), (429, ConnectionError, None), (401, IncompleteWrite, 3), (413, IncompleteWrite, 3)],
)
def test_http_refusals_are_tried_again_or_counted(
    tmp_path: Path, status: int, error: type[Exception], rejected: int | None
) -> None:
    with collector(lambda *_: (status, b"no")) as port:
        for address in (f"elasticsearch+http://127.0.0.1:{port}", f"otlp+http://127.0.0.1:{port}"):
            sink = one(address, tmp_path)
            with pytest.raises(error) as raised:
                sink.write(batch())
            sink.close()
            assert getattr(raised.value, "rejected", None) == rejected


def test_otlp_sends_spans_in_the_callers_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=core%20one,broken")
    asked: list[tuple[str, ExportTraceServiceRequest, dict[str, str]]] = []

    def answer(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        asked.append((path, ExportTraceServiceRequest.FromString(body), headers))
        return 200, b""

    with collector(answer) as port:
        sink = one(f"otlp+http://127.0.0.1:{port}", tmp_path)
        written = batch()
        sink.write(written)
        sink.close()
    ((path, request, headers),) = asked
    assert (path, headers["x-team"], headers["Content-Type"]) == ("/v1/traces", "core one", "application/x-protobuf")
    (resource,) = request.resource_spans
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes}["service.name"] == "confide"
    read, whole, lonely = resource.scope_spans[0].spans
    assert [span.name for span in (read, whole, lonely)] == ["sql configs.read", "request GET /config", "notify"]
    assert whole.trace_id.hex() == read.trace_id.hex() == "1" * 32
    assert whole.parent_span_id.hex() == "2" * 16
    assert read.parent_span_id == whole.span_id
    assert lonely.parent_span_id == b""
    assert len(lonely.trace_id) == 16
    assert [span.kind for span in (read, whole, lonely)] == [3, 2, 3]  # client, server, client
    assert [span.status.code for span in (read, whole, lonely)] == [0, 0, 2]
    now = time.time_ns()
    assert all(
        now - 60 * 10**9 < span.start_time_unix_nano <= span.end_time_unix_nano <= now for span in (read, whole, lonely)
    )


def test_otlp_reads_what_was_rejected(tmp_path: Path) -> None:
    said = ExportTraceServiceResponse()
    said.partial_success.rejected_spans = 2
    with collector(lambda *_: (200, said.SerializeToString())) as port:
        sink = one(f"otlp+http://127.0.0.1:{port}", tmp_path)
        with pytest.raises(IncompleteWrite) as partly:
            sink.write(batch())
        sink.close()
    assert (partly.value.retryable, partly.value.rejected) == ([], 2)


def test_several_sinks_at_once_are_made_in_their_order(tmp_path: Path) -> None:
    sinks = build_sinks("sqlite, stdout,file:///tmp/x ,", folder=tmp_path, max_bytes=1, max_age_days=1)
    assert [sink.name for sink in sinks] == ["sqlite", "stdout", "file"]
    assert build_sinks("", folder=tmp_path, max_bytes=1, max_age_days=1) == []


@pytest.mark.parametrize(
    "address",
    ["mysql://secret@host/x", "sqlite:///elsewhere", "file://", "elasticsearch://host", "otlp+ftp://host", "otlp+http://"],
)  # fmt: skip
def test_an_address_that_is_no_sink_is_refused_without_being_quoted(address: str) -> None:
    with pytest.raises(UnknownSink) as refused:
        require_known_sinks(f"sqlite,{address}")
    assert "secret" not in str(refused.value)
    assert "postgresql://" in str(refused.value)


def test_an_event_is_a_plain_tuple_in_the_order_of_its_fields() -> None:
    event: Event = batch().events[0]
    assert type(event) is tuple
