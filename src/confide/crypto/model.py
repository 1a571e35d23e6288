"""Values and the contract of encryption."""

from __future__ import annotations

from dataclasses import dataclass, field

from confide.names import Key


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A wrapped key; destroyed ones have lost their bytes."""

    id: bytes
    purpose: str
    tenant: str
    master_key_id: bytes
    wrapped: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class EncryptionContext:
    """What sealed bytes are bound to, so that a row moved or swapped does not open."""

    key: Key
    version: int
    kind: str
