"""Run a long computation in slices: it pauses itself, and continues where it paused."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any, Generic, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

T = TypeVar("T")

# A loop over this many values or fewer takes a fraction of a millisecond.
_VALUES_BETWEEN_PAUSES = 512


class _Slice:
    """When the current slice ends. Outside a slice it never ends."""

    ends_at = math.inf


class _IdleGreenlets(threading.local):
    """The greenlets of this thread that wait for a call. A new greenlet costs ten times as much as a switch."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []


_idle = _IdleGreenlets()


class SlicedCall(Generic[T]):
    """A call that runs in slices. `pause_if_due` ends a slice whose time is over, wherever the function is."""

    __slots__ = ("_error", "_function", "_greenlet", "_is_done", "_result")
    _result: T

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._greenlet: Any = None
        self._is_done = False
        self._error: BaseException | None = None

    @property
    def result(self) -> T:
        return self._result

    @property
    def has_begun(self) -> bool:
        return self._greenlet is not None

    def run_slice(self, seconds: float) -> bool:
        """Run until the function returns, or pauses after that time. Return whether it has returned."""
        _Slice.ends_at = perf_counter() + seconds
        try:
            if self._greenlet is None:
                self._greenlet = _idle.waiting.pop() if _idle.waiting else greenlet(_run_calls)
                self._greenlet.switch(self)
            else:
                self._greenlet.switch()
        finally:
            _Slice.ends_at = math.inf
        if self._error is not None:
            raise self._error
        return self._is_done

    def cancel(self) -> None:
        """End a paused function by `GreenletExit`."""
        if self._greenlet is not None and not self._is_done:
            self._greenlet.throw()

    def run_to_end(self) -> None:
        """Run the function in its greenlet."""
        try:
            self._result = self._function()
        except GreenletExit:
            raise
        except BaseException as error:  # noqa: BLE001 - `run_slice` raises it
            self._error = error
        self._is_done = True


def _run_calls(call: SlicedCall[Any]) -> None:
    """Run calls in one greenlet, one after the other."""
    this = getcurrent()
    while True:
        call.run_to_end()
        _idle.waiting.append(this)
        del call  # its function can hold a configuration
        call = this.parent.switch()


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
