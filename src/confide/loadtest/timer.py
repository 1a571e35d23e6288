"""Timer with microsecond precision. Timers of the event loop have milliseconds, longer than many requests."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class PreciseTimer:
    """Timer on the monotonic clock, by timerfd_create(2) on Linux and by the event loop elsewhere."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._file = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file >= 0:
            loop.add_reader(self._file, self._fire)

    def set(self, at: float) -> None:
        """Fire at a time of `time.monotonic`, at once if it has passed. Set it again only after it fired."""
        if self._file < 0:
            self._loop.call_later(max(0.0, at - time.monotonic()), self._callback)
            return
        whole = int(at)
        # A value of zero would disarm the timer.
        value = _Itimerspec(_Timespec(0, 0), _Timespec(whole, max(1, int((at - whole) * 1e9))))
        self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(value), None)

    def close(self) -> None:
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _fire(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        self._callback()
