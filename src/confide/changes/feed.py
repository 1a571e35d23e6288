"""The contract of a change feed, by which a process receives the changes of other processes."""

from __future__ import annotations

from typing import Protocol

from confide.changes.model import Change


class ChangeFeed(Protocol):
    """The change feed of one process. Only one task calls its methods, except `notify`."""

    # Counts the connections. On a new one, changes that only other reads have returned may be gone.
    connection_number: int

    async def read(self) -> list[Change]:
        """Read the changes since the previous read. The first read returns none.

        A change can be returned twice after a lost connection. After `DatabaseUnavailable`, the next read continues.
        After `ChangeFeedReset`, the next read starts at the end of the log.
        """

    async def wait(self) -> None:
        """Wait for a notification or for the polling interval of the engine."""

    def compute_watermark_age_seconds(self) -> float:
        """Return the seconds by which a running transaction delays watch and the audit chain."""

    def notify(self) -> None:
        """Notify other processes that a change was committed. They read the change themselves."""

    async def close(self) -> None: ...
