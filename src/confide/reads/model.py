"""Values of reads: the current config, its renderings, and access statistics."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from confide.caching.stamps import TakenStamps
from confide.configs.model import StoredVersion
from confide.epoch import Epoch
from confide.names import ConfigKey

if TYPE_CHECKING:
    from confide.integration_types.compiled import IntegrationType


class ReadCount(NamedTuple):
    """Number of reads of one config by one token, with the time of the last one in microseconds since 1970."""

    key: ConfigKey
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
    def has_defaults(self) -> bool:
        return self < Rendering.READABLE_WITHOUT_DEFAULTS


class CurrentConfig(NamedTuple):
    """The current version of a config, with its configuration as JSON, and in the rendering that a caller needs.

    A deleted config has a tombstone, but no `configuration` and no `type`. A config that never existed has no stored
    version either.
    """

    stored: StoredVersion | None
    configuration: bytes | None = None
    type: IntegrationType | None = None
    # None if it is not rendered yet.
    rendered: bytes | None = None

    @property
    def version(self) -> int:
        return 0 if self.stored is None else self.stored.version


@dataclass(frozen=True, slots=True)
class RenderedConfig:
    """A version of a config in one rendering, as JSON."""

    stored: StoredVersion
    configuration: bytes = field(repr=False)
    rendering: Rendering
    # The version of its integration type. None if the type has no schema.
    type_version: int | None
    epoch: Epoch
    # Those of its cache entry.
    stamps: TakenStamps
