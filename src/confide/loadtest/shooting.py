"""One process of a run: begins each request when it is due, whatever became of those before it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop

from confide.loadtest.calls import Calls
from confide.loadtest.connections import Connection, Connections
from confide.loadtest.plans import Plan
from confide.loadtest.recording import Seconds, new_histogram
from confide.loadtest.timers import Timer

TELL_SECONDS = 0.5
FIRST_ERROR = 400
# What a request was given up for.
TIMEOUT, UNANSWERED = "timeout", "unanswered at the end"


@dataclass(slots=True)
class Lately:
    """What happened since the last time it was told, for whoever looks on."""

    answered: int = 0
    errors: int = 0
    histogram: Any = field(default_factory=new_histogram)

    def document(self, *, under_way: int) -> dict[str, Any]:
        encoded = self.histogram.encode().decode()
        return {"answered": self.answered, "errors": self.errors, "under_way": under_way, "histogram": encoded}


class Shooter:
    """An open model: the schedule is the plan's alone, and latency counts from when a request was due.

    So a server that stalls is told of every request that it made wait (G. Tene, "How NOT to Measure Latency").
    """

    def __init__(self, plan: Plan, tokens: Sequence[str], *, share: int, begin: float) -> None:
        self._plan = plan
        self._calls = Calls(plan, tokens, share=share)
        self._connections = Connections(plan.url, most=plan.connections)
        self._arrivals = plan.arrivals(share=share)
        self._begin = begin
        self._seconds = Seconds()
        self._lately = Lately()
        self._lags = new_histogram()
        self._under_way: dict[_Shot, None] = {}
        self._due = 0.0
        self._is_over = asyncio.Event()
        self._timer = Timer(asyncio.get_running_loop(), self._fire)

    async def run(
        self, tell: Callable[[dict[str, Any]], None], *, is_to_stop: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Run to the end, or until it is to stop, telling now and then what happened lately; returns all there is."""
        self._next()
        await asyncio.sleep(max(0.0, self._begin - time.monotonic()))
        cpu, wall, ran = time.process_time(), time.monotonic(), self._plan.seconds
        while not self._is_over.is_set():
            await asyncio.sleep(TELL_SECONDS)
            if is_to_stop() and not self._is_over.is_set():
                # What was due until then was begun.
                ran = min(self._due, time.monotonic() - self._begin)
                self._is_over.set()
            self._give_up_what_took_too_long()
            tell(self._lately.document(under_way=len(self._under_way)))
            self._lately = Lately()
            settled = time.monotonic() - self._begin - self._plan.timeout_seconds - 1
            self._seconds.close_before(self._plan.second_of(settled))
        # Of a run that was over at once nothing can be said.
        cpu_share = (time.process_time() - cpu) / max(time.monotonic() - wall, TELL_SECONDS)
        await self._wait_for_the_rest()
        self._timer.close()
        self._connections.close()
        return {
            "seconds": self._seconds.documents(),
            "lag": self._lags.encode().decode(),
            "cpu_share": cpu_share,
            "ran_seconds": ran,
            "shortages": self._connections.shortages,
        }

    def _next(self) -> None:
        due = next(self._arrivals, None)
        if due is None:
            self._is_over.set()
        else:
            self._due = due
            self._timer.set(self._begin + due)

    def _fire(self) -> None:
        if self._is_over.is_set():
            return
        now = time.monotonic() - self._begin
        while self._due <= now:
            self._lags.record_value(max(1, int((now - self._due) * 1e6)))
            self._shoot(self._due)
            due = next(self._arrivals, None)
            if due is None:
                self._is_over.set()
                return
            self._due = due
        self._timer.set(self._begin + self._due)

    def _shoot(self, due: float) -> None:
        call, data = self._calls.next()
        shot = _Shot(self, call, data, due)
        self._seconds.of(self._plan.second_of(due)).intended += 1
        self._under_way[shot] = None
        self._connections.use(shot.send)

    def ended(self, shot: _Shot, status: int, why: str) -> None:
        self._under_way.pop(shot, None)
        second = self._seconds.of(self._plan.second_of(shot.due))
        if status == 0 or status >= FIRST_ERROR:
            second.errors[why or str(status)] += 1
            self._lately.errors += 1
            return
        micros = (time.monotonic() - self._begin - shot.due) * 1e6
        second.note(shot.call, micros)
        self._lately.answered += 1
        self._lately.histogram.record_value(max(1, int(micros)))

    def _give_up_what_took_too_long(self) -> None:
        before = time.monotonic() - self._begin - self._plan.timeout_seconds
        for shot in list(self._under_way):  # in the order in which they were due
            if shot.due > before:
                break
            shot.give_up(TIMEOUT)

    async def _wait_for_the_rest(self) -> None:
        until = time.monotonic() + self._plan.timeout_seconds
        while self._under_way and time.monotonic() < until:
            await asyncio.sleep(0.01)
            self._give_up_what_took_too_long()
        for shot in list(self._under_way):
            shot.give_up(UNANSWERED)


class _Shot:
    """One request from when it is due until it ended."""

    __slots__ = ("_connection", "_data", "_is_over", "_shooter", "call", "due")

    def __init__(self, shooter: Shooter, call: str, data: bytes, due: float) -> None:
        self._shooter = shooter
        self._data = data
        self._connection: Connection | None = None
        self._is_over = False
        self.call = call
        self.due = due

    def send(self, connection: Connection) -> bool:
        if self._is_over:  # given up while it waited for a connection
            return False
        self._connection = connection
        connection.send(self._data, self._end)
        return True

    def give_up(self, why: str) -> None:
        if self._connection is None:
            self._end(0, why)
        else:
            self._connection.abandon(why)

    def _end(self, status: int, why: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._shooter.ended(self, status, why)


def shoot(plan: Plan, tokens: Sequence[str], share: int, begin: float, out: Any) -> None:
    """The whole life of a process: `out` is sent ("lately", …) now and then and ("done", …) at the end.

    It stops early once there is anything to read from `out`.
    """

    async def run() -> dict[str, Any]:
        shooter = Shooter(plan, tokens, share=share, begin=begin)
        return await shooter.run(lambda told: out.send(("lately", told)), is_to_stop=out.poll)

    try:
        out.send(("done", uvloop.run(run())))
    finally:
        out.close()
