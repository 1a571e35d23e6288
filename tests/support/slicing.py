"""Run a computation in the shortest slices, and measure the steps between its pauses."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confide.slices import SlicedCall

# The longest step that is promised, in seconds.
MAX_STEP_SECONDS = 0.005


@dataclass
class Steps:
    """The processor time of each step of a computation."""

    seconds: list[float] = field(default_factory=list)

    @property
    def longest_seconds(self) -> float:
        return max(self.seconds)


def run_in_steps(function: Callable[[], object]) -> Steps:
    """Run a function that pauses wherever it can, and return its steps."""
    steps, call = Steps(), SlicedCall(function)
    is_done = False
    while not is_done:
        began = time.thread_time()
        is_done = call.run_slice(0)
        steps.seconds.append(time.thread_time() - began)
    return steps
