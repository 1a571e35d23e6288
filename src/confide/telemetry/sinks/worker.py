"""Sink workers: each sink has a thread and a queue of its own, so that a slow sink delays nothing else."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

from confide.telemetry.events import Batch, Event
from confide.telemetry.sinks.sink import IncompleteWrite, Sink

# The pause after a failed write doubles up to the maximum.
FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 30.0

_log = logging.getLogger("confide")


class _WriteResult(NamedTuple):
    retryable: list[Event]
    # The reason of a failure, empty after a success.
    failure: str


class SinkWorker:
    """A thread that writes batches to one sink. A full queue drops and counts its oldest batches."""

    def __init__(self, sink: Sink, *, max_events: int, name: str | None = None) -> None:
        self.name = name or sink.name
        self._sink = sink
        self._max_events = max_events
        self._queue: deque[Batch] = deque()
        # Events in the queue and in the batch that is being written.
        self._unwritten = 0
        self._changed = threading.Condition()
        self._is_closing = threading.Event()
        self._last_failure = ""
        # Plain totals. The metrics page computes the increase.
        self.written = self.dropped = self.rejected = self.failures = 0
        self._thread = threading.Thread(target=self._run, name=f"io-sink-{self.name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._unwritten

    def enqueue(self, batch: Batch) -> None:
        with self._changed:
            self._queue.append(batch)
            self._unwritten += len(batch.events)
            while self._unwritten > self._max_events and len(self._queue) > 1:
                self._drop(self._queue.popleft())
            self._changed.notify()

    def begin_closing(self) -> None:
        """Write each queued batch once more at most, then end the thread."""
        self._is_closing.set()
        with self._changed:
            self._changed.notify()

    def join(self, *, deadline: float) -> None:
        """Wait for the end of the thread until `deadline`, a `time.monotonic` time."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive() and self._unwritten:
            _log.warning("io_events_lost_at_shutdown sink=%s events=%d", self.name, self._unwritten)

    def _run(self) -> None:
        while (batch := self._wait_for_batch()) is not None:
            self._deliver(batch)
        self._sink.close()

    def _wait_for_batch(self) -> Batch | None:
        with self._changed:
            while not self._queue:
                if self._is_closing.is_set():
                    return None
                self._changed.wait()
            return self._queue.popleft()

    def _deliver(self, batch: Batch) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            is_last = self._is_closing.is_set()
            result = self._write(batch)
            self._log_change(result.failure)
            self._release(len(batch.events) - len(result.retryable))
            if not result.retryable:
                return
            batch = batch._replace(events=result.retryable)
            if is_last:
                self._drop(batch)
                return
            self._is_closing.wait(pause_seconds)
            pause_seconds = min(pause_seconds * 2, MAX_PAUSE_SECONDS)

    def _log_change(self, reason: str) -> None:
        """Log only when the reason of a failure differs from that of the previous write."""
        if reason == self._last_failure:
            return
        self._last_failure = reason
        if reason:
            _log.warning("io_sink_failed sink=%s reason=%s", self.name, reason)
        else:
            lost = self.dropped + self.rejected
            _log.warning("io_sink_recovered sink=%s lost_events=%d", self.name, lost)

    def _write(self, batch: Batch) -> _WriteResult:
        try:
            self._sink.write(batch)
        except IncompleteWrite as incomplete:
            self.rejected += incomplete.rejected
            self.written += len(batch.events) - len(incomplete.retryable) - incomplete.rejected
            self.failures += bool(incomplete.retryable)
            return _WriteResult(incomplete.retryable, str(incomplete))
        except Exception as error:  # noqa: BLE001 - the worker must continue after any error of a sink
            self.failures += 1
            return _WriteResult(batch.events, _describe(error))
        self.written += len(batch.events)
        return _WriteResult([], "")

    def _release(self, count: int) -> None:
        with self._changed:
            self._unwritten -= count

    def _drop(self, batch: Batch) -> None:
        with self._changed:
            self._unwritten -= len(batch.events)
            self.dropped += len(batch.events)


def _describe(error: Exception) -> str:
    """Describe an error by its class, and its file if it has one.

    The message of a driver can quote the address with its password.
    """
    if isinstance(error, OSError) and error.filename and error.strerror:
        return repr(f"{error.filename}: {error.strerror}")
    return type(error).__name__


def build_sink_workers(sinks: Iterable[Sink], *, max_events: int) -> list[SinkWorker]:
    """Start a worker for each sink. Workers of sinks with the same name are numbered: `file`, `file-2`."""
    seen: Counter[str] = Counter()
    workers = []
    for sink in sinks:
        seen[sink.name] += 1
        name = sink.name if seen[sink.name] == 1 else f"{sink.name}-{seen[sink.name]}"
        workers.append(SinkWorker(sink, max_events=max_events, name=name))
    return workers
