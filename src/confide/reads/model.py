"""Values of reads: the current config, its renderings, and access statistics."""

from __future__ import annotations

import enum
from typing import NamedTuple

from confide.integration_types.model import UNTYPED, IntegrationType
from confide.names import Key


class ReadCount(NamedTuple):
    """Reads of one config with one token."""

    key: Key
    token_id: int
    last_read_at: int
    reads: int


class AccessSummary(NamedTuple):
    """What the usage ledger tells of one token; login and label if it is still there."""

    token_id: int
    login: str | None
    label: str | None
    last_read_at: int
    reads: int


class Rendering(enum.IntEnum):
    """A form of a config: secrets readable or masked, and with or without the defaults of its type."""

    OPENED = 0
    MASKED = 1
    OPENED_BARE = 2
    MASKED_BARE = 3

    @property
    def is_masked(self) -> bool:
        return self in (Rendering.MASKED, Rendering.MASKED_BARE)

    @property
    def is_bare(self) -> bool:
        return self >= Rendering.OPENED_BARE


class Current(NamedTuple):
    """The current configuration of a key as JSON bytes. None if missing, with the version of its tombstone or 0."""

    version: int
    configuration: bytes | None
    type: IntegrationType = UNTYPED
