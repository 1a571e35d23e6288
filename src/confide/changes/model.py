"""Values of the change log."""

from __future__ import annotations

from typing import NamedTuple

from confide.names import Key


class Change(NamedTuple):
    """One row of the change log, without its body.

    A change of a whole tenant has a tenant and no key; a change of an integration type has its name and no key.
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
    """The range of the log: it starts after `begins`, is in final order up to `now`, and ends at `ends`."""

    begins: Position
    now: Position
    ends: Position


class ChangeFeedReset(Exception):
    """The log cannot be read on: the position was trimmed, or the store began a new epoch."""


class Position(NamedTuple):
    """The order of a change in one epoch: (xid, id) on PostgreSQL, (0, id) on SQLite."""

    xid: int
    id: int
