"""Plan of a run: service, rate, duration and request mix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import floor
from typing import Any

from confide.time_formats import parse_duration

OPERATIONS = ("get", "merge", "put", "list", "versions")
PREFIX = "load-"


class InvalidPlan(ValueError):
    """A part of a plan is invalid."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Part of a run with a constant rate, in requests per second."""

    seconds: float
    rate: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a worker needs except tokens, which results must not contain."""

    url: str
    stages: tuple[Stage, ...]
    mix: tuple[tuple[str, float], ...] = (("get", 95.0), ("merge", 4.0), ("list", 1.0))
    tenants: int = 100
    types: int = 3
    skew: float = 1.0
    warm_up_seconds: float = 2.0
    timeout_seconds: float = 10.0
    # For each worker.
    connections: int = 256
    processes: int = 1
    seed: int = 1

    @property
    def total_seconds(self) -> float:
        """Duration of the schedule with its warm-up."""
        return self.warm_up_seconds + self.measured_seconds

    @property
    def measured_seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    def truncate(self, seconds: int) -> Plan:
        """Return the same plan, ended this many seconds after the warm-up."""
        stages, left = [], float(seconds)
        for stage in self.stages:
            if left > 0:
                stages.append(replace(stage, seconds=min(stage.seconds, left)))
                left -= stage.seconds
        return replace(self, stages=tuple(stages))

    def format_tenant(self, number: int) -> str:
        return f"{PREFIX}{number:06d}"

    def format_integration_type(self, number: int) -> str:
        return f"{PREFIX}type-{number}"

    def schedule(self, *, worker: int) -> Iterator[float]:
        """Yield the scheduled starts of one worker's requests, in seconds from the start of the run.

        Requests are evenly spaced over all workers. The warm-up has the rate of the first stage.
        """
        begin, number = 0.0, 0
        for stage in (Stage(self.warm_up_seconds, self.stages[0].rate), *self.stages):
            count = int(stage.seconds * stage.rate)
            for index in range(count):
                if number % self.processes == worker:
                    yield begin + index / stage.rate
                number += 1
            begin += stage.seconds

    def find_second(self, scheduled_at: float) -> int:
        """Return the measured second of a scheduled start. Seconds of the warm-up are negative."""
        return floor(scheduled_at - self.warm_up_seconds)

    def to_document(self) -> dict[str, Any]:
        return asdict(self)


def parse_mix(text: str) -> tuple[tuple[str, float], ...]:
    """Parse operations with their weights, such as `get=95,merge=4,list=1`. Raises `InvalidPlan`."""
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        if name not in OPERATIONS or name in mix:
            choices = ", ".join(OPERATIONS)
            raise InvalidPlan(f"{name!r} is not one of {choices}. Write each at most once: get=95,merge=4,list=1.")
        try:
            mix[name] = float(weight)
        except ValueError:
            mix[name] = -1.0
        if not 0 <= mix[name] < float("inf"):
            raise InvalidPlan(f"The weight of {name} must be a number of at least 0, such as get=95,merge=4,list=1.")
    if not sum(mix.values()):
        raise InvalidPlan("At least one operation must have a weight above 0.")
    return tuple((name, weight) for name, weight in mix.items() if weight)


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Parse durations with their rates per second, such as `10s:500,30s:2000`. Raises `InvalidPlan`."""
    stages = []
    for part in text.split(","):
        duration, _, rate_text = part.partition(":")
        try:
            rate = float(rate_text)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise InvalidPlan(f"{part!r} is not a stage. Write a duration and requests per second, such as 30s:2000.")
        try:
            stages.append(Stage(parse_duration(duration), rate))
        except ValueError as error:
            raise InvalidPlan(str(error)) from None
    return tuple(stages)
