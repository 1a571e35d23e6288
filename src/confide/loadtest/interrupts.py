"""Ctrl-C while a service is loaded: the first ends it with what there was until then, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self


class Interrupts:
    """Hears SIGINT for as long as it is entered; it hears none that is somebody else's to hear, or nobody's."""

    def __init__(self) -> None:
        self.is_heard = False
        self._pipes: list[Connection] = []
        self._before: Any = None

    def __enter__(self) -> Self:
        is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_ours and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def pass_on(self, pipes: Iterable[Connection]) -> None:
        """From now on it is these pipes that are told to stop; at once if an interrupt was heard already."""
        self._pipes = list(pipes)
        if self.is_heard:
            self._tell()

    def _hear(self, _number: int, _frame: object) -> None:
        if self.is_heard:
            raise KeyboardInterrupt
        self.is_heard = True
        self._tell()

    def _tell(self) -> None:
        for pipe in self._pipes:
            with suppress(OSError):  # its process has ended by itself
                pipe.send("stop")


@contextmanager
def held_back() -> Iterator[None]:
    """Meanwhile interrupts wait; a process that is started now never hears one, which would end it with a trace."""
    # Where it runs already, starting a process does not start it, which would let interrupts through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
