"""Worker process of a run: starts each request on schedule, whether or not earlier ones have a response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import uvloop

from confide.loadtest.connection import Connection, ConnectionPool
from confide.loadtest.plan import Plan
from confide.loadtest.recorder import LatencyRecorder, create_histogram
from confide.loadtest.timer import PreciseTimer
from confide.loadtest.workload import Workload

PROGRESS_SECONDS = 0.5
# Kinds of errors without a response.
TIMEOUT, UNANSWERED = "timeout", "unanswered at the end"


@dataclass(slots=True)
class Interval:
    """Responses and errors since the last progress message."""

    answered: int = 0
    errors: int = 0
    histogram: Any = field(default_factory=create_histogram)

    def to_document(self, *, in_flight: int) -> dict[str, Any]:
        encoded = self.histogram.encode().decode()
        return {"answered": self.answered, "errors": self.errors, "in_flight": in_flight, "histogram": encoded}


class LoadWorker:
    """Open-model load generator. Latency is measured from each request's scheduled start.

    So a stalled server is charged for every request that it delays (G. Tene, "How NOT to Measure Latency").
    """

    def __init__(self, plan: Plan, tokens: Sequence[str], *, worker: int, begin: float) -> None:
        """`begin` is the start of the run on the monotonic clock."""
        self._plan = plan
        self._workload = Workload(plan, tokens, worker=worker)
        self._pool = ConnectionPool(plan.url, max_connections=plan.connections)
        self._schedule = plan.schedule(worker=worker)
        self._begin = begin
        self._recorder = LatencyRecorder()
        self._interval = Interval()
        self._start_lags = create_histogram()
        self._in_flight: dict[_ScheduledRequest, None] = {}
        self._scheduled_at = 0.0
        self._is_over = asyncio.Event()
        self._timer = PreciseTimer(asyncio.get_running_loop(), self._start_due_requests)

    async def run(
        self,
        on_progress: Callable[[dict[str, Any]], None],
        *,
        is_stop_requested: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """Run until the schedule ends or a stop is requested. Return the measurements of this worker."""
        self._set_first_timer()
        await asyncio.sleep(max(0.0, self._begin - time.monotonic()))
        cpu_begin, begin, ran_seconds = time.process_time(), time.monotonic(), self._plan.total_seconds
        while not self._is_over.is_set():
            await asyncio.sleep(PROGRESS_SECONDS)
            if is_stop_requested() and not self._is_over.is_set():
                # Every request that was scheduled until then has been started.
                ran_seconds = min(self._scheduled_at, time.monotonic() - self._begin)
                self._is_over.set()
            self._time_out_requests()
            on_progress(self._interval.to_document(in_flight=len(self._in_flight)))
            self._interval = Interval()
            settled = time.monotonic() - self._begin - self._plan.timeout_seconds - 1
            self._recorder.encode_before(self._plan.find_second(settled))
        # A shorter time would give an arbitrary share.
        cpu_share = (time.process_time() - cpu_begin) / max(time.monotonic() - begin, PROGRESS_SECONDS)
        await self._wait_for_responses()
        self._timer.close()
        self._pool.close()
        return {
            "seconds": self._recorder.encode_all(),
            "lag": self._start_lags.encode().decode(),
            "cpu_share": cpu_share,
            "ran_seconds": ran_seconds,
            "shortages": self._pool.shortages,
        }

    def record_end(self, request: _ScheduledRequest, status: int, error_kind: str) -> None:
        """Record the response of a request, or its error with status 0."""
        self._in_flight.pop(request, None)
        second = self._recorder.open_second(self._plan.find_second(request.scheduled_at))
        if status == 0 or status >= HTTPStatus.BAD_REQUEST:
            second.errors[error_kind or str(status)] += 1
            self._interval.errors += 1
            return
        latency_us = (time.monotonic() - self._begin - request.scheduled_at) * 1e6
        second.record(request.operation, latency_us)
        self._interval.answered += 1
        self._interval.histogram.record_value(max(1, int(latency_us)))

    def _set_first_timer(self) -> None:
        scheduled_at = next(self._schedule, None)
        if scheduled_at is None:
            self._is_over.set()
        else:
            self._scheduled_at = scheduled_at
            self._timer.set(self._begin + scheduled_at)

    def _start_due_requests(self) -> None:
        if self._is_over.is_set():
            return
        now = time.monotonic() - self._begin
        while self._scheduled_at <= now:
            self._start_lags.record_value(max(1, int((now - self._scheduled_at) * 1e6)))
            self._start_request(self._scheduled_at)
            scheduled_at = next(self._schedule, None)
            if scheduled_at is None:
                self._is_over.set()
                return
            self._scheduled_at = scheduled_at
        self._timer.set(self._begin + self._scheduled_at)

    def _start_request(self, scheduled_at: float) -> None:
        operation, data = self._workload.draw()
        request = _ScheduledRequest(self, operation, data, scheduled_at)
        self._recorder.open_second(self._plan.find_second(scheduled_at)).intended += 1
        self._in_flight[request] = None
        self._pool.acquire(request.send)

    def _time_out_requests(self) -> None:
        oldest_allowed = time.monotonic() - self._begin - self._plan.timeout_seconds
        for request in list(self._in_flight):  # in the order of the schedule
            if request.scheduled_at > oldest_allowed:
                break
            request.fail(TIMEOUT)

    async def _wait_for_responses(self) -> None:
        deadline = time.monotonic() + self._plan.timeout_seconds
        while self._in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            self._time_out_requests()
        for request in list(self._in_flight):
            request.fail(UNANSWERED)


class _ScheduledRequest:
    """One request, from its scheduled start to its response or error."""

    __slots__ = ("_connection", "_data", "_is_over", "_worker", "operation", "scheduled_at")

    def __init__(self, worker: LoadWorker, operation: str, data: bytes, scheduled_at: float) -> None:
        self._worker = worker
        self._data = data
        self._connection: Connection | None = None
        self._is_over = False
        self.operation = operation
        self.scheduled_at = scheduled_at

    def send(self, connection: Connection) -> bool:
        """Send the request. Return False if it timed out while it queued for a connection."""
        if self._is_over:
            return False
        self._connection = connection
        connection.send(self._data, self._end)
        return True

    def fail(self, error_kind: str) -> None:
        if self._connection is None:
            self._end(0, error_kind)
        else:
            self._connection.abort(error_kind)

    def _end(self, status: int, error_kind: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._worker.record_end(self, status, error_kind)


def run_worker(plan: Plan, tokens: Sequence[str], worker: int, begin: float, pipe: Any) -> None:
    """Run one worker in its own process.

    Sends `("progress", …)` twice a second and `("done", …)` at the end. Any message in `pipe` requests a stop.
    """

    async def run() -> dict[str, Any]:
        load_worker = LoadWorker(plan, tokens, worker=worker, begin=begin)
        return await load_worker.run(lambda interval: pipe.send(("progress", interval)), is_stop_requested=pipe.poll)

    try:
        pipe.send(("done", uvloop.run(run())))
    finally:
        pipe.close()
