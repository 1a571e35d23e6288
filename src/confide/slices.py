"""Run a long computation in slices: it pauses itself, and continues where it paused."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")

# A loop over this many values or fewer takes a fraction of a millisecond.
_VALUES_BETWEEN_PAUSES = 512


class _Slice:
    """When the current slice ends. Outside a slice it never ends."""

    ends_at = math.inf


class SlicedCall(Generic[T]):
    """A call that runs in slices. `pause_if_due` ends a slice whose time is over, wherever the function is."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._greenlet: Any = greenlet(self._run)
        self._results: list[T] = []

    @property
    def result(self) -> T:
        return self._results[0]

    def run_slice(self, seconds: float) -> bool:
        """Run until the function returns, or pauses after that time. Return whether it has returned."""
        _Slice.ends_at = perf_counter() + seconds
        try:
            self._greenlet.switch()
        finally:
            _Slice.ends_at = math.inf
        return bool(self._results)

    def cancel(self) -> None:
        """End a paused function by `GreenletExit`."""
        if self._greenlet:
            self._greenlet.throw()

    def _run(self) -> None:
        self._results.append(self._function())


def pause_if_due() -> None:
    """Pause the current `SlicedCall` if its slice is over. Does nothing outside of one."""
    if perf_counter() >= _Slice.ends_at:
        paused_in = getcurrent().parent
        # Another thread has no sliced calls.
        if paused_in is not None:
            paused_in.switch()


def is_in_slice() -> bool:
    return _Slice.ends_at != math.inf


def iterate(values: Sequence[T]) -> Iterable[T]:
    """Iterate over values that are quick to handle, with pauses."""
    return values if len(values) <= _VALUES_BETWEEN_PAUSES else _iterate_with_pauses(values)


def _iterate_with_pauses(values: Sequence[T]) -> Iterator[T]:
    for start in range(0, len(values), _VALUES_BETWEEN_PAUSES):
        pause_if_due()
        yield from values[start : start + _VALUES_BETWEEN_PAUSES]
