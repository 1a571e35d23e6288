"""Where events go: each sink has a thread and a queue of its own, so that one that hangs holds up nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Protocol

from confide.telemetry.events import Batch, Event, Recorder
from confide.telemetry.histograms import Histograms

TAKE_SECONDS = 0.25
# Between two tries of a sink that does not take what it is given.
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
# How long the end of the process waits for sinks to take the rest.
CLOSE_SECONDS = 2.0

_log = logging.getLogger("confide")


class Sink(Protocol):
    """One place for events. Only its own thread calls it, and it may block."""

    name: str

    def write(self, batch: Batch) -> None:
        """Write all of a batch; raises `RetryLater` for what shall be tried once more, or any error for all of it."""

    def close(self) -> None: ...


class RetryLater(Exception):
    """A sink took a part only; some of the rest it will never take."""

    def __init__(self, events: list[Event], *, rejected: int = 0, why: str = "") -> None:
        super().__init__(why)
        self.events = events
        self.rejected = rejected


class SinkWorker:
    """Feeds one sink. What does not fit its queue goes, the oldest first, and is counted."""

    def __init__(self, sink: Sink, *, most_events: int, name: str | None = None) -> None:
        self.name = name or sink.name
        self._sink = sink
        self._most = most_events
        self._waiting: deque[Batch] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._is_closing = threading.Event()
        self._said = ""
        # Plain integers; whoever tells of them compares with what they were.
        self.written = self.dropped = self.rejected = self.failures = 0
        self._thread = threading.Thread(target=self._run, name=f"iolog-{self.name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._held

    def put(self, batch: Batch) -> None:
        with self._changed:
            self._waiting.append(batch)
            self._held += len(batch.events)
            while self._held > self._most and len(self._waiting) > 1:
                self._drop(self._waiting.popleft())
            self._changed.notify()

    def begin_closing(self) -> None:
        """What waits is written, each batch tried once, and then it ends."""
        self._is_closing.set()
        with self._changed:
            self._changed.notify()

    def join(self, *, until: float) -> None:
        """Wait, on the monotonic clock, until it has ended or the time is over."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive() and self._held:
            _log.warning("io_events_lost_at_shutdown sink=%s events=%d", self.name, self._held)

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            self._deliver(batch)
        self._sink.close()

    def _next(self) -> Batch | None:
        with self._changed:
            while not self._waiting:
                if self._is_closing.is_set():
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def _deliver(self, batch: Batch) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            is_last = self._is_closing.is_set()
            rest, why = self._tried(batch)
            self._say(why)
            self._let_go(len(batch.events) - len(rest))
            if not rest:
                return
            batch = batch._replace(events=rest)
            if is_last:
                self._drop(batch)
                return
            self._is_closing.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _say(self, why: str) -> None:
        """Once when something is wrong, once when it is something else or over."""
        if why == self._said:
            return
        self._said = why
        if why:
            _log.warning("io_sink_failed sink=%s reason=%s", self.name, why)
        else:
            lost = self.dropped + self.rejected
            _log.warning("io_sink_recovered sink=%s lost_events=%d", self.name, lost)

    def _tried(self, batch: Batch) -> tuple[list[Event], str]:
        """What must be tried again, and what was wrong."""
        try:
            self._sink.write(batch)
        except RetryLater as partly:
            self.rejected += partly.rejected
            self.written += len(batch.events) - len(partly.events) - partly.rejected
            self.failures += bool(partly.events)
            return partly.events, str(partly)
        except Exception as error:  # noqa: BLE001 - whatever it is, requests go on and the next try may do
            self.failures += 1
            # The class only: a driver's sentence may quote the address with its password.
            return batch.events, type(error).__name__
        self.written += len(batch.events)
        return [], ""

    def _let_go(self, events: int) -> None:
        with self._changed:
            self._held -= events

    def _drop(self, batch: Batch) -> None:
        with self._changed:
            self._held -= len(batch.events)
            self.dropped += len(batch.events)


def outlets_of(sinks: Iterable[Sink], *, most_events: int) -> list[SinkWorker]:
    """An outlet for each sink; where several are of one kind they are numbered: `file`, `file-2`."""
    seen: Counter[str] = Counter()
    made = []
    for sink in sinks:
        seen[sink.name] += 1
        name = sink.name if seen[sink.name] == 1 else f"{sink.name}-{seen[sink.name]}"
        made.append(SinkWorker(sink, most_events=most_events, name=name))
    return made


class Dispatcher:
    """Takes events out of the queue, adds them up and hands them to every outlet, on a thread of its own."""

    def __init__(self, recorder: Recorder, tallies: Histograms, outlets: list[SinkWorker]) -> None:
        self.recorder = recorder
        self.tallies = tallies
        self.outlets = outlets
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="iolog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give the sinks a moment to take what there is, and go."""
        until = time.monotonic() + CLOSE_SECONDS
        self._is_closing.set()
        self._thread.join(CLOSE_SECONDS)
        for outlet in self.outlets:
            outlet.begin_closing()
        for outlet in self.outlets:
            outlet.join(until=until)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_closing.wait(TAKE_SECONDS)
            batch = self.recorder.take()
            if batch.events:
                self.tallies.add(batch.events)
                for outlet in self.outlets:
                    outlet.put(batch)
