"""Values of the change log."""

from __future__ import annotations

from typing import NamedTuple

from confide.names import Key


class Change(NamedTuple):
    """One row of the change log, without its body.

    What is about a whole tenant has a tenant and no key; what is about an integration type has its name and no key.
    """

    position: Position
    kind: str
    tenant: str | None
    integration_type: str | None
    version: int | None
    subject: int | None

    @property
    def key(self) -> Key | None:
        if self.tenant is None or self.integration_type is None:
            return None
        return Key(self.tenant, self.integration_type)


class LogBounds(NamedTuple):
    """What the log holds: everything after `begins`, in its order up to `now`; nothing can be after `ends` yet."""

    begins: Position
    now: Position
    ends: Position


class ChangeFeedReset(Exception):
    """The log cannot be read on: it no longer reaches back that far, or the store has begun a new epoch."""


class Position(NamedTuple):
    """Order of a change in one epoch: (xid, id) on PostgreSQL, (0, id) on SQLite."""

    xid: int
    id: int
