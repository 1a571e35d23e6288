"""Explore every interleaving of concurrent tasks, by state: each distinct state is continued once.

A task is a generator that yields its local state before each of its atomic steps. Shared state belongs to a world.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True)
class Pause:
    """The local state of a task before its next step, and whether that step can run now."""

    state: Hashable
    is_ready: Callable[[], object] = lambda: True


Task: TypeAlias = Generator[Pause, None, None]


class World(Protocol):
    """The shared state of the tasks."""

    violations: list[str]

    def start_tasks(self) -> Sequence[Task]: ...

    def describe(self, local: tuple[Hashable, ...]) -> Hashable:
        """Return a value that is equal for states with the same future."""


class _Run:
    """One run of the tasks, from the start."""

    def __init__(self, build_world: Callable[[], Any], path: Sequence[int]) -> None:
        self.world = build_world()
        self._tasks = self.world.start_tasks()
        self._pauses = [next(task, None) for task in self._tasks]
        for number in path:
            self.step(number)

    def step(self, number: int) -> None:
        self._pauses[number] = next(self._tasks[number], None)

    def list_ready(self) -> list[int]:
        return [number for number, pause in enumerate(self._pauses) if pause is not None and pause.is_ready()]

    def has_ended(self) -> bool:
        return not any(self._pauses)

    def describe(self) -> Hashable:
        described: Hashable = self.world.describe(tuple(pause and pause.state for pause in self._pauses))
        return described


@dataclass
class Exploration:
    """The number of distinct states, and the first violation with the order of tasks that leads to it."""

    states: int
    violation: str | None


def explore(build_world: Callable[[], Any]) -> Exploration:
    """Run the tasks of a world in every order. Stop at the first violation."""
    seen: set[Hashable] = set()
    waiting: list[tuple[int, ...]] = [()]
    while waiting:
        path = waiting.pop()
        run = _Run(build_world, path)
        while True:
            if run.world.violations:
                return Exploration(len(seen), f"{run.world.violations[0]} (order of tasks: {path})")
            state = run.describe()
            if state in seen:
                break
            seen.add(state)
            ready = run.list_ready()
            if not ready:
                assert run.has_ended(), f"deadlock after {path}"
                break
            # Continue with the first task here. Other orders start again from the beginning.
            waiting += [(*path, number) for number in ready[1:]]
            run.step(ready[0])
            path = (*path, ready[0])
    return Exploration(len(seen), None)
