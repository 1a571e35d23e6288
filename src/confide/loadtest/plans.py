"""What a run shall do: where, how much, for how long, of what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import floor
from typing import Any

from confide.time_formats import parse_duration

CALLS = ("get", "merge", "put", "list", "versions")
PREFIX = "load-"


class BadPlan(ValueError):
    """A part of a plan that cannot be read."""


@dataclass(frozen=True, slots=True)
class Stage:
    """So many requests a second for so many seconds."""

    seconds: float
    rate: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a process must know to do its share; tokens are told apart from it."""

    url: str
    stages: tuple[Stage, ...]
    mix: tuple[tuple[str, float], ...] = (("get", 95.0), ("merge", 4.0), ("list", 1.0))
    tenants: int = 100
    types: int = 3
    skew: float = 1.0
    warm_up_seconds: float = 2.0
    timeout_seconds: float = 10.0
    # For each process.
    connections: int = 256
    processes: int = 1
    seed: int = 1

    @property
    def seconds(self) -> float:
        """How long requests are begun, the warming up included."""
        return self.warm_up_seconds + self.measured_seconds

    @property
    def measured_seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    def cut(self, seconds: int) -> Plan:
        """The same plan, ended so many seconds after the warming up."""
        stages, left = [], float(seconds)
        for stage in self.stages:
            if left > 0:
                stages.append(replace(stage, seconds=min(stage.seconds, left)))
                left -= stage.seconds
        return replace(self, stages=tuple(stages))

    def tenant(self, number: int) -> str:
        return f"{PREFIX}{number:06d}"

    def integration_type(self, number: int) -> str:
        return f"{PREFIX}type-{number}"

    def arrivals(self, *, share: int) -> Iterator[float]:
        """When a process shall begin its requests, in seconds from the start: every so many of all, evenly.

        The warming up goes at the rate of the first stage.
        """
        begin, number = 0.0, 0
        for stage in (Stage(self.warm_up_seconds, self.stages[0].rate), *self.stages):
            count = int(stage.seconds * stage.rate)
            for one in range(count):
                if number % self.processes == share:
                    yield begin + one / stage.rate
                number += 1
            begin += stage.seconds

    def second_of(self, due: float) -> int:
        """In which second a request was due; those of the warming up are below zero."""
        return floor(due - self.warm_up_seconds)

    def document(self) -> dict[str, Any]:
        return asdict(self)


def read_mix(text: str) -> tuple[tuple[str, float], ...]:
    """`get=95,merge=4,list=1`: calls with their weights."""
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        if name not in CALLS or name in mix:
            raise BadPlan(f"{name!r} is not one of {', '.join(CALLS)}, each given once: get=95,merge=4,list=1.")
        try:
            mix[name] = float(weight)
        except ValueError:
            mix[name] = -1.0
        if not 0 <= mix[name] < float("inf"):
            raise BadPlan(f"The weight of {name} is not a number from 0 on: get=95,merge=4,list=1.")
    if not sum(mix.values()):
        raise BadPlan("Some call must have a weight above 0.")
    return tuple((name, weight) for name, weight in mix.items() if weight)


def read_stages(text: str) -> tuple[Stage, ...]:
    """`10s:500,30s:2000`: for how long, and how many a second."""
    stages = []
    for part in text.split(","):
        span, _, rate = part.partition(":")
        try:
            found = float(rate)
        except ValueError:
            found = 0.0
        if not 0 < found < float("inf"):
            raise BadPlan(f"{part!r} is not a stage such as 30s:2000, seconds and requests a second.")
        try:
            stages.append(Stage(parse_duration(span), found))
        except ValueError as error:
            raise BadPlan(str(error)) from None
    return tuple(stages)
