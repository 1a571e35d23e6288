"""The dispatcher between the recorder of events and their consumers."""

from __future__ import annotations

import threading
import time

from confide.telemetry.events import EventRecorder
from confide.telemetry.histograms import Histograms
from confide.telemetry.sinks.worker import SinkWorker

DISPATCH_EVERY_SECONDS = 0.25
MAX_CLOSE_SECONDS = 2.0


class Dispatcher:
    """A thread that moves events from the recorder to the histograms and the sink workers, at a fixed interval."""

    def __init__(self, recorder: EventRecorder, histograms: Histograms, sink_workers: list[SinkWorker]) -> None:
        self.recorder = recorder
        self.histograms = histograms
        self.sink_workers = sink_workers
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="io-dispatcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Dispatch the last events and wait for the sinks to write them, for at most `MAX_CLOSE_SECONDS`."""
        deadline = time.monotonic() + MAX_CLOSE_SECONDS
        self._is_closing.set()
        self._thread.join(MAX_CLOSE_SECONDS)
        for worker in self.sink_workers:
            worker.begin_closing()
        for worker in self.sink_workers:
            worker.join(deadline=deadline)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_closing.wait(DISPATCH_EVERY_SECONDS)
            batch = self.recorder.take()
            if batch.events:
                self.histograms.add(batch.events)
                for worker in self.sink_workers:
                    worker.enqueue(batch)
