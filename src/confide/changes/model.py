"""Values of the change log."""

from __future__ import annotations

from typing import NamedTuple

from confide.names import ConfigKey


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
    def key(self) -> ConfigKey | None:
        if self.tenant is None or self.integration_type is None:
            return None
        return ConfigKey(self.tenant, self.integration_type)


class LogBounds(NamedTuple):
    """The range of the log. It starts after `start` and ends at `end`; its order is final up to `final`."""

    start: Position
    final: Position
    end: Position


class ChangeFeedReset(Exception):
    """The feed lost changes: the database began a new epoch, failed over, or had too many changes."""


class Position(NamedTuple):
    """The place of a change in one epoch: (transaction ID, row ID) on PostgreSQL, (0, row ID) on SQLite."""

    xid: int
    id: int
