"""Sink workers: a slow or failing sink delays nothing else, and a full queue drops and counts its oldest events."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from confide.telemetry.dispatcher import Dispatcher
from confide.telemetry.events import Batch, Event, EventRecorder
from confide.telemetry.histograms import Histograms
from confide.telemetry.sinks import worker as worker_module
from confide.telemetry.sinks.sink import IncompleteWrite
from confide.telemetry.sinks.worker import SinkWorker, build_sink_workers

TIMEOUT_SECONDS = 5.0


class MemorySink:
    """Keeps events in memory. `on_write` runs before each write; it can block or raise."""

    name = "memory"

    def __init__(self, *, on_write: Callable[[Batch], object] = lambda _: None) -> None:
        self.events: list[Event] = []
        self.is_closed = False
        self._on_write = on_write

    @property
    def ids(self) -> list[int]:
        return [event[0] for event in self.events]

    def write(self, batch: Batch) -> None:
        self._on_write(batch)
        self.events += batch.events

    def close(self) -> None:
        self.is_closed = True


def build_batch(*ids: int) -> Batch:
    return Batch("w", 0, [(number, None, "sql", 0, 1, "ok", 0, None, None, None, None) for number in ids])


def close(worker: SinkWorker, *, seconds: float = TIMEOUT_SECONDS) -> None:
    worker.begin_closing()
    worker.join(deadline=time.monotonic() + seconds)


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, "The condition was not met in time."
        time.sleep(0.005)


def test_a_worker_writes_batches_in_order_and_the_queued_ones_when_it_closes() -> None:
    sink = MemorySink()
    worker = SinkWorker(sink, max_events=100)
    for number in range(20):
        worker.enqueue(build_batch(number, number + 100))
    close(worker)
    assert sink.ids == [id_ for number in range(20) for id_ in (number, number + 100)]
    assert (worker.written, worker.dropped, worker.waiting, sink.is_closed) == (40, 0, 0, True)


def test_a_hanging_sink_delays_no_other_sink_and_loses_the_oldest_queued_events() -> None:
    can_continue = threading.Event()
    sink = MemorySink(on_write=lambda _: can_continue.wait(TIMEOUT_SECONDS))
    other_sink = MemorySink()
    hanging, healthy = SinkWorker(sink, max_events=10), SinkWorker(other_sink, max_events=100)
    hanging.enqueue(build_batch(0))
    wait_until(lambda: not hanging._queue)  # the write of the first batch hangs
    began = time.monotonic()
    for number in range(1, 30):
        hanging.enqueue(build_batch(number))
        healthy.enqueue(build_batch(number))
    assert time.monotonic() - began < 1
    wait_until(lambda: len(other_sink.events) == 29)
    assert (hanging.waiting, hanging.dropped, healthy.dropped) == (10, 20, 0)
    can_continue.set()
    close(hanging)
    assert sink.ids == [0, *range(21, 30)]
    assert hanging.written + hanging.dropped == 30


def test_a_failed_write_is_retried_without_loss_and_each_new_failure_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "FIRST_PAUSE_SECONDS", 0.001)
    failures = [ConnectionError("http://user:secret@host"), ConnectionError(), TimeoutError()]

    def fail(_: Batch) -> None:
        if failures:
            raise failures.pop(0)

    sink = MemorySink(on_write=fail)
    worker = SinkWorker(sink, max_events=100)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            worker.enqueue(build_batch(number))
        wait_until(lambda: worker.waiting == 0)
    assert sink.ids == [0, 1, 2]
    assert (worker.written, worker.failures, worker.dropped) == (3, 3, 0)
    messages = [record.message for record in caplog.records]
    assert [message.split(" ")[0] for message in messages] == ["io_sink_failed", "io_sink_failed", "io_sink_recovered"]
    assert "ConnectionError" in messages[0]
    assert "TimeoutError" in messages[1]
    assert "secret" not in caplog.text
    close(worker)


def test_after_an_incomplete_write_only_the_retryable_events_are_written_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "FIRST_PAUSE_SECONDS", 0.001)
    writes: list[list[int]] = []

    def reject_one(batch: Batch) -> None:
        writes.append([event[0] for event in batch.events])
        if len(writes) == 1:
            raise IncompleteWrite(batch.events[2:], rejected=1, reason="1 with 400")

    worker = SinkWorker(MemorySink(on_write=reject_one), max_events=100)
    worker.enqueue(build_batch(1, 2, 3, 4))
    wait_until(lambda: worker.waiting == 0)
    assert writes == [[1, 2, 3, 4], [3, 4]]
    assert (worker.written, worker.rejected, worker.dropped) == (3, 1, 0)
    close(worker)


def test_closing_does_not_wait_for_a_hanging_sink_beyond_the_deadline() -> None:
    can_continue = threading.Event()
    worker = SinkWorker(MemorySink(on_write=lambda _: can_continue.wait(TIMEOUT_SECONDS)), max_events=10)
    worker.enqueue(build_batch(1))
    began = time.monotonic()
    close(worker, seconds=0.2)
    assert time.monotonic() - began < 1
    can_continue.set()


def test_rejected_events_are_counted_and_the_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def reject(batch: Batch) -> None:
        raise IncompleteWrite([], rejected=len(batch.events), reason="HTTP 401")

    worker = SinkWorker(MemorySink(on_write=reject), max_events=100)
    with caplog.at_level(logging.WARNING):
        for number in range(30):
            worker.enqueue(build_batch(number, number + 100))
        wait_until(lambda: worker.waiting == 0)
    assert (worker.rejected, worker.written, worker.dropped) == (60, 0, 0)
    assert len(caplog.records) == 1
    close(worker)


def test_closing_retries_a_paused_sink_once_and_a_hanging_sink_takes_no_time_from_the_others() -> None:
    can_continue, is_healthy = threading.Event(), threading.Event()

    def fail_until_healthy(_: Batch) -> None:
        if not is_healthy.is_set():
            raise ConnectionError

    sinks = [
        MemorySink(on_write=lambda _: can_continue.wait(TIMEOUT_SECONDS)),
        MemorySink(on_write=fail_until_healthy),
        MemorySink(),
    ]
    workers = build_sink_workers(sinks, max_events=10)
    assert [worker.name for worker in workers] == ["memory", "memory-2", "memory-3"]
    for worker in workers:
        worker.enqueue(build_batch(1))
    wait_until(lambda: workers[1].failures > 0)
    is_healthy.set()
    for worker in workers:
        worker.begin_closing()
    for worker in workers:
        worker.join(deadline=time.monotonic() + 0.3)
    assert [sink.ids for sink in sinks] == [[], [1], [1]]
    can_continue.set()


def test_the_dispatcher_hands_every_event_to_the_histograms_and_to_each_sink_worker() -> None:
    recorder, sinks = EventRecorder(worker="w", max_events=1_000), [MemorySink(), MemorySink()]
    histograms = Histograms()
    dispatcher = Dispatcher(recorder, histograms, build_sink_workers(sinks, max_events=1_000))
    for number in range(100):
        recorder.record(f"sql {number % 3}", 0)
        if number == 50:
            wait_until(lambda: bool(sinks[0].events))
    dispatcher.close()
    assert len(sinks[0].events) == len(sinks[1].events) == 100
    assert sum(sum(histogram.counts) for histogram in histograms.take().values()) == 100
