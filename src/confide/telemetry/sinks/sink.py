"""The contract between a sink and its worker."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from confide.telemetry.events import Batch, Event


class SinkOptions(NamedTuple):
    """The address of a sink, and the limits for what it stores. Each sink is built from these options alone."""

    address: str
    # The folder of the files of `sqlite`.
    folder: Path
    # For each worker.
    max_bytes: int
    max_age_seconds: int


class Sink(Protocol):
    """A destination of events. Only the thread of its worker calls it, so it may block."""

    name: str

    def write(self, batch: Batch) -> None:
        """Write all events of a batch.

        Raises `IncompleteWrite` if the sink took only a part. After any other error the whole batch is written again.
        """

    def close(self) -> None: ...


class IncompleteWrite(Exception):
    """A sink took only a part of a batch: `retryable` events can be sent again, `rejected` ones are lost."""

    def __init__(self, retryable: list[Event], *, rejected: int = 0, reason: str) -> None:
        super().__init__(reason)
        self.retryable = retryable
        self.rejected = rejected
