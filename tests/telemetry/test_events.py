"""I/O events: their fields, and a queue that never blocks the code that records."""

from __future__ import annotations

import asyncio
import inspect
import threading
from dataclasses import replace
from time import monotonic_ns

from confide.context import NO_REQUEST, current_request
from confide.telemetry import events
from confide.telemetry.events import FIELDS, EventRecorder, build_documents
from confide.telemetry.histograms import BUCKET_BOUNDS_SECONDS, Histograms, is_error
from confide.telemetry.io_log import IoLog


def test_an_operation_of_a_request_has_the_request_id_and_the_event_of_the_request_as_parent() -> None:
    recorder = EventRecorder(worker="w", max_events=10)
    trace = recorder.begin_request("abc", trace_id="f" * 32, parent_span="e" * 16)
    began_ns = monotonic_ns()

    async def handle_request() -> None:
        current_request.set(replace(NO_REQUEST, trace=trace))
        trace.user_id = 7
        recorder.record("sql one", began_ns, amount=3)
        # A task that the request starts belongs to the request.
        await asyncio.create_task(asyncio.to_thread(recorder.record, "sql two", began_ns))

    asyncio.run(handle_request())
    recorder.end_request(trace, "request GET /x", began_ns, outcome="200", amount=99)
    recorder.record("sql without a request", began_ns)
    documents = list(build_documents(recorder.take()))
    first, second, request, separate = documents
    assert [document["parent"] for document in documents] == [request["id"], request["id"], None, None]
    assert [document["request_id"] for document in documents] == ["abc", "abc", "abc", None]
    assert (first["amount"], first["user_id"], first["outcome"]) == (3, 7, "ok")
    assert (request["trace_id"], request["parent_span"]) == ("f" * 32, "e" * 16)
    assert (first["trace_id"], first["parent_span"]) == ("f" * 32, None)
    for document in documents:
        assert document["began_ns"] <= document["ended_ns"]
        took_us = document["ended_at"] - document["began_at"]
        assert 0 <= took_us <= (document["ended_ns"] - document["began_ns"]) // 1_000 + 1
    assert len({document["id"] for document in (first, second, request, separate)}) == 4
    assert recorder.take().events == []


def test_a_full_queue_drops_and_counts_its_oldest_events() -> None:
    recorder = EventRecorder(worker="w", max_events=3)
    for number in range(5):
        recorder.record(f"sql {number}", monotonic_ns())
    assert (recorder.waiting, recorder.dropped) == (3, 2)
    assert [event[events.OPERATION] for event in recorder.take().events] == ["sql 2", "sql 3", "sql 4"]


def test_an_event_is_a_plain_tuple() -> None:
    """A named tuple would take longer to create than the rest of `record`."""
    recorder = EventRecorder(worker="w", max_events=1)
    recorder.record("sql", 0)
    assert type(recorder.take().events[0]) is tuple


def test_two_workers_share_no_event_id() -> None:
    ids: list[int] = []
    for _ in range(2):
        recorder = EventRecorder(worker="w", max_events=1_000)
        for _ in range(1_000):
            recorder.record("sql", 0)
        ids += [event[events.ID] for event in recorder.take().events]
    assert len(set(ids)) == 2_000
    assert all(0 <= number < 2**63 for number in ids)


def test_a_thread_can_record_while_another_takes_events() -> None:
    recorder = EventRecorder(worker="w", max_events=100_000)
    taken = 0

    def record_many() -> None:
        for _ in range(20_000):
            recorder.record("sql", 0)

    thread = threading.Thread(target=record_many)
    thread.start()
    while thread.is_alive():
        taken += len(recorder.take().events)
    thread.join()
    assert taken + len(recorder.take().events) == 20_000
    assert recorder.dropped == 0


def test_no_field_and_no_argument_can_hold_a_body_a_token_or_a_parameter() -> None:
    """A new field or argument fails here, so that a reviewer checks what it can hold."""
    assert FIELDS == (
        "id", "parent", "operation", "began_ns", "ended_ns", "outcome", "amount", "request_id", "trace_id",
        "parent_span", "user_id",
    )  # fmt: skip
    for name, arguments in {
        "record": {"self", "operation", "began_ns", "outcome", "amount", "ended_ns"},
        "end_request": {"self", "trace", "operation", "began_ns", "outcome", "amount", "ended_ns"},
        "begin_request": {"self", "request_id", "trace_id", "parent_span"},
    }.items():
        assert set(inspect.signature(getattr(IoLog, name)).parameters) == arguments


def test_histograms_count_durations_and_errors_by_operation() -> None:
    recorder = EventRecorder(worker="w", max_events=100)
    histograms = Histograms()
    for took_us, outcome in ((50, "ok"), (200, "ok"), (200, "TimeoutError"), (10_000_000, "503"), (200, "404")):
        recorder.record("sql", 0, ended_ns=took_us * 1_000, outcome=outcome)
    histograms.add(recorder.take().events)
    histogram = histograms.take()["sql"]
    assert histogram.counts[:2] == [1, 3]
    assert histogram.counts[-1] == 1
    assert len(histogram.counts) == len(BUCKET_BOUNDS_SECONDS) + 1
    assert (histogram.errors, round(histogram.total_seconds, 6)) == (2, 10.00065)
    assert histograms.take() == {}


def test_an_error_class_and_a_status_of_500_and_above_are_errors() -> None:
    assert [is_error(outcome) for outcome in ("ok", "200", "404", "500", "503", "Disconnected", "CancelledError")] == [
        False, False, False, True, True, True, True,
    ]  # fmt: skip
