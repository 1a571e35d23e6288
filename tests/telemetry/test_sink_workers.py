"""A sink that hangs, fails or takes a part only holds up nobody; what does not fit goes, the oldest first, counted."""

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

SECONDS = 5.0


class Stub:
    """A sink that does what it is told."""

    name = "stub"

    def __init__(self, *, taking: Callable[[Batch], object] = lambda _: None) -> None:
        self.taken: list[Event] = []
        self.is_closed = False
        self._taking = taking

    def write(self, batch: Batch) -> None:
        self._taking(batch)
        self.taken += batch.events

    def close(self) -> None:
        self.is_closed = True


def batch_of(*numbers: int) -> Batch:
    return Batch("w", 0, [(number, None, "sql", 0, 1, "ok", 0, None, None, None, None) for number in numbers])


def close(outlet: SinkWorker, *, seconds: float = SECONDS) -> None:
    outlet.begin_closing()
    outlet.join(deadline=time.monotonic() + seconds)


def ids(stub: Stub) -> list[int]:
    return [event[0] for event in stub.taken]


def until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def test_what_is_put_is_written_in_its_order_and_the_rest_at_the_end() -> None:
    stub = Stub()
    outlet = SinkWorker(stub, max_events=100)
    for number in range(20):
        outlet.enqueue(batch_of(number, number + 100))
    close(outlet)
    assert ids(stub) == [one for number in range(20) for one in (number, number + 100)]
    assert (outlet.written, outlet.dropped, outlet.waiting, stub.is_closed) == (40, 0, 0, True)


def test_a_sink_that_hangs_holds_up_nobody_and_loses_the_oldest_of_what_waits() -> None:
    goes_on = threading.Event()
    stub = Stub(taking=lambda _: goes_on.wait(SECONDS))
    other = Stub()
    hanging, sound = SinkWorker(stub, max_events=10), SinkWorker(other, max_events=100)
    hanging.enqueue(batch_of(0))
    until(lambda: not hanging._queue)  # it hangs on the first one
    began = time.monotonic()
    for number in range(1, 30):
        hanging.enqueue(batch_of(number))
        sound.enqueue(batch_of(number))
    assert time.monotonic() - began < 1
    until(lambda: len(other.taken) == 29)
    assert (hanging.waiting, hanging.dropped, sound.dropped) == (10, 20, 0)
    goes_on.set()
    close(hanging)
    assert ids(stub) == [0, *range(21, 30)]
    assert hanging.written + hanging.dropped == 30


def test_a_sink_that_fails_is_tried_again_and_loses_nothing_that_fits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "FIRST_PAUSE_SECONDS", 0.001)
    failures = [ConnectionError("http://user:secret@host"), ConnectionError(), TimeoutError()]

    def taking(_: Batch) -> None:
        if failures:
            raise failures.pop(0)

    stub = Stub(taking=taking)
    outlet = SinkWorker(stub, max_events=100)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            outlet.enqueue(batch_of(number))
        until(lambda: outlet.waiting == 0)
    assert ids(stub) == [0, 1, 2]
    assert (outlet.written, outlet.failures, outlet.dropped) == (3, 3, 0)
    said = [record.message for record in caplog.records]
    # Once for each kind of trouble, once when it is over, and never what the error quotes.
    assert [line.split(" ")[0] for line in said] == ["io_sink_failed", "io_sink_failed", "io_sink_recovered"]
    assert ["ConnectionError" in said[0], "TimeoutError" in said[1]] == [True, True]
    assert "secret" not in caplog.text
    close(outlet)


def test_of_a_batch_that_is_taken_in_part_only_the_rest_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "FIRST_PAUSE_SECONDS", 0.001)
    seen: list[list[int]] = []

    def taking(batch: Batch) -> None:
        seen.append([event[0] for event in batch.events])
        if len(seen) == 1:
            raise IncompleteWrite(batch.events[2:], rejected=1, reason="1 with 400")

    outlet = SinkWorker(Stub(taking=taking), max_events=100)
    outlet.enqueue(batch_of(1, 2, 3, 4))
    until(lambda: outlet.waiting == 0)
    assert seen == [[1, 2, 3, 4], [3, 4]]
    assert (outlet.written, outlet.rejected, outlet.dropped) == (3, 1, 0)
    close(outlet)


def test_the_end_does_not_wait_for_a_sink_that_hangs() -> None:
    goes_on = threading.Event()
    outlet = SinkWorker(Stub(taking=lambda _: goes_on.wait(SECONDS)), max_events=10)
    outlet.enqueue(batch_of(1))
    began = time.monotonic()
    close(outlet, seconds=0.2)
    assert time.monotonic() - began < 1
    goes_on.set()


def test_what_a_sink_refuses_for_good_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def taking(batch: Batch) -> None:
        raise IncompleteWrite([], rejected=len(batch.events), reason="HTTP 401")

    outlet = SinkWorker(Stub(taking=taking), max_events=100)
    with caplog.at_level(logging.WARNING):
        for number in range(30):
            outlet.enqueue(batch_of(number, number + 100))
        until(lambda: outlet.waiting == 0)
    assert (outlet.rejected, outlet.written, outlet.dropped) == (60, 0, 0)
    assert len(caplog.records) == 1
    close(outlet)


def test_at_the_end_a_sink_that_hangs_takes_nothing_from_the_others_and_one_that_pauses_is_tried_once_more() -> None:
    goes_on, is_well = threading.Event(), threading.Event()

    def pausing(_: Batch) -> None:
        if not is_well.is_set():
            raise ConnectionError

    stubs = [Stub(taking=lambda _: goes_on.wait(SECONDS)), Stub(taking=pausing), Stub()]
    outlets_ = build_sink_workers(stubs, max_events=10)
    assert [outlet.name for outlet in outlets_] == ["stub", "stub-2", "stub-3"]
    for outlet in outlets_:
        outlet.enqueue(batch_of(1))
    until(lambda: outlets_[1].failures > 0)
    is_well.set()
    for outlet in outlets_:
        outlet.begin_closing()
    for outlet in outlets_:
        outlet.join(deadline=time.monotonic() + 0.3)
    assert [ids(stub) for stub in stubs] == [[], [1], [1]]
    goes_on.set()


def test_the_pump_hands_everything_to_every_outlet_and_the_rest_at_the_end() -> None:
    recorder, stubs = EventRecorder(worker="w", max_events=1_000), [Stub(), Stub()]
    tallies = Histograms()
    pump = Dispatcher(recorder, tallies, [SinkWorker(stub, max_events=1_000) for stub in stubs])
    for number in range(100):
        recorder.record(f"sql {number % 3}", 0)
        if number == 50:
            until(lambda: bool(stubs[0].taken))
    pump.close()
    assert len(stubs[0].taken) == len(stubs[1].taken) == 100
    assert sum(sum(tally.counts) for tally in tallies.take().values()) == 100
