"""What an event holds, and that the queue never makes anybody wait."""

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


def test_what_is_noted_for_a_request_bears_its_id_and_its_own_event_as_parent() -> None:
    recorder = EventRecorder(worker="w", max_events=10)
    request = recorder.begin_request("abc", trace_id="f" * 32, parent_span="e" * 16)
    began = monotonic_ns()

    async def work() -> None:
        current_request.set(replace(NO_REQUEST, trace=request))
        request.user_id = 7
        recorder.record("sql one", began, amount=3)
        # What is begun on its behalf in a task of its own is its as well.
        await asyncio.create_task(asyncio.to_thread(recorder.record, "sql two", began))

    asyncio.run(work())
    recorder.end_request(request, "request GET /x", began, outcome="200", amount=99)
    recorder.record("sql nobody's", began)
    first, second, whole, lonely = build_documents(recorder.take())
    assert [first["parent"], second["parent"], whole["parent"], lonely["parent"]] == [
        whole["id"],
        whole["id"],
        None,
        None,
    ]
    assert [one["request_id"] for one in (first, second, whole, lonely)] == ["abc", "abc", "abc", None]
    assert (first["amount"], first["user_id"], first["outcome"]) == (3, 7, "ok")
    assert (whole["trace_id"], whole["parent_span"], first["trace_id"], first["parent_span"]) == (
        "f" * 32,
        "e" * 16,
        "f" * 32,
        None,
    )
    for one in (first, second, whole, lonely):
        assert one["began_ns"] <= one["ended_ns"]
        assert 0 <= one["ended_at"] - one["began_at"] <= (one["ended_ns"] - one["began_ns"]) // 1_000 + 1
    assert len({one["id"] for one in (first, second, whole, lonely)}) == 4
    assert recorder.take().events == []


def test_a_full_queue_drops_the_oldest_and_counts_it() -> None:
    recorder = EventRecorder(worker="w", max_events=3)
    for number in range(5):
        recorder.record(f"sql {number}", monotonic_ns())
    assert (recorder.waiting, recorder.dropped) == (3, 2)
    assert [event[events.OPERATION] for event in recorder.take().events] == ["sql 2", "sql 3", "sql 4"]


def test_ids_of_two_workers_do_not_meet() -> None:
    taken = []
    for _ in range(2):
        recorder = EventRecorder(worker="w", max_events=1_000)
        for _ in range(1_000):
            recorder.record("sql", 0)
        taken += [event[events.ID] for event in recorder.take().events]
    assert len(set(taken)) == 2_000
    assert all(0 <= number < 2**63 for number in taken)


def test_events_may_be_noted_while_they_are_taken() -> None:
    recorder = EventRecorder(worker="w", max_events=100_000)
    taken = 0

    def note() -> None:
        for _ in range(20_000):
            recorder.record("sql", 0)

    noting = threading.Thread(target=note)
    noting.start()
    while noting.is_alive():
        taken += len(recorder.take().events)
    noting.join()
    assert taken + len(recorder.take().events) == 20_000
    assert recorder.dropped == 0


def test_no_field_of_an_event_and_no_argument_of_a_note_could_hold_a_body_a_token_or_a_parameter() -> None:
    """What cannot be expressed cannot leak: whoever adds a field must look at this list."""
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


def test_tallies_add_up_by_operation_in_steps_of_time() -> None:
    recorder = EventRecorder(worker="w", max_events=100)
    tallies = Histograms()
    for micros, outcome in ((50, "ok"), (200, "ok"), (200, "TimeoutError"), (10_000_000, "503"), (200, "404")):
        recorder.record("sql", 0, ended_ns=micros * 1_000, outcome=outcome)
    tallies.add(recorder.take().events)
    tally = tallies.take()["sql"]
    assert tally.counts[:2] == [1, 3]
    assert tally.counts[-1] == 1
    assert len(tally.counts) == len(BUCKET_BOUNDS_SECONDS) + 1
    assert (tally.errors, round(tally.total_seconds, 6)) == (2, 10.00065)
    assert tallies.take() == {}
    assert [is_error(outcome) for outcome in ("ok", "200", "404", "500", "503", "Disconnected", "CancelledError")] == [
        False, False, False, True, True, True, True,
    ]  # fmt: skip
