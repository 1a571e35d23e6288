"""Values of encryption."""

from __future__ import annotations

from dataclasses import dataclass, field

from confide.names import ConfigKey


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key, encrypted with a master key. `wrapped` is None after its destruction."""

    id: bytes
    purpose: str
    tenant: str
    master_key_id: bytes
    wrapped: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class EncryptionContext:
    """The row that a ciphertext is bound to. A ciphertext that was moved to another row cannot be decrypted."""

    config_key: ConfigKey
    version: int
    kind: str
