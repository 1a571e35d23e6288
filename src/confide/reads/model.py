"""Values of reads: the current config, its renderings, and access statistics."""

from __future__ import annotations

import enum
from typing import NamedTuple

from confide.integration_types.model import UNTYPED, IntegrationType
from confide.names import Key


class ReadCount(NamedTuple):
    """How often one token read one config, and when last (microseconds since 1970)."""

    key: Key
    token_id: int
    last_read_at: int
    reads: int


class AccessSummary(NamedTuple):
    """The stored statistics of one token. Login and label are None if the user or the token no longer exists."""

    token_id: int
    login: str | None
    label: str | None
    last_read_at: int
    reads: int


class Rendering(enum.IntEnum):
    """A form of a config: secrets readable or masked, with or without the defaults of its integration type."""

    READABLE = 0
    MASKED = 1
    READABLE_WITHOUT_DEFAULTS = 2
    MASKED_WITHOUT_DEFAULTS = 3

    @property
    def is_masked(self) -> bool:
        return self in (Rendering.MASKED, Rendering.MASKED_WITHOUT_DEFAULTS)

    @property
    def is_without_defaults(self) -> bool:
        return self >= Rendering.READABLE_WITHOUT_DEFAULTS


class CurrentConfig(NamedTuple):
    """The current version of a config, with its configuration as JSON.

    For a config that does not exist, `configuration` is None and `version` is that of its tombstone, or 0.
    """

    version: int
    configuration: bytes | None
    type: IntegrationType = UNTYPED
