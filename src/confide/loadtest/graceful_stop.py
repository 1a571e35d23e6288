"""Graceful stop of a run: the first Ctrl-C ends it with a partial result, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self


class GracefulStop:
    """Context that turns the first SIGINT into a message to workers and the second into `KeyboardInterrupt`.

    It does nothing outside the main thread, or if another handler is installed.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self._pipes: list[Connection] = []
        self._previous_handler: Any = None

    def __enter__(self) -> Self:
        is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_default and threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._receive_interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)

    def forward_to(self, pipes: Iterable[Connection]) -> None:
        """Send a stop to these pipes instead of the previous ones: now if already requested, otherwise on SIGINT."""
        self._pipes = list(pipes)
        if self.is_requested:
            self._send_stop()

    def _receive_interrupt(self, _number: int, _frame: object) -> None:
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested = True
        self._send_stop()

    def _send_stop(self) -> None:
        for pipe in self._pipes:
            with suppress(OSError):  # its process has already ended
                pipe.send("stop")


@contextmanager
def block_interrupts() -> Iterator[None]:
    """Delay SIGINT. Processes started meanwhile inherit the block, so Ctrl-C does not end them with a traceback."""
    # Start it first: starting a process would otherwise start it, and that unblocks SIGINT.
    resource_tracker.ensure_running()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
