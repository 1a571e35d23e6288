"""The contract of a change feed: what one process learns of the changes of others."""

from __future__ import annotations

from typing import Protocol

from confide.changes.model import Change


class ChangeFeed(Protocol):
    """The change feed of one process. Only one task uses it, except for `notify`."""

    async def read(self) -> list[Change]:
        """Read every change that the previous read could not see. The first read returns none.

        A change is returned twice only after a lost connection. Raises `DatabaseUnavailable`, after which the next read
        continues, or `ChangeFeedReset`, after which the next read starts again.
        """

    async def wait(self) -> None:
        """Wait until it is time to read: after a notification, or in the rhythm of the engine."""

    def watermark_age(self) -> float:
        """Return the seconds by which watch and the audit chain lag behind a running transaction; 0 if none runs."""

    def notify(self) -> None:
        """Tell other processes soon that a change was committed. They read the change themselves."""

    async def close(self) -> None: ...
