"""Values and the contract of encryption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from confide.names import Key


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A wrapped key; destroyed ones have lost their bytes."""

    id: bytes
    purpose: str
    tenant: str
    master_key_id: bytes
    wrapped: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealContext:
    """What sealed bytes are bound to, so that a row moved or swapped does not open."""

    key: Key
    version: int
    kind: str


class Sealer(Protocol):
    """Seals and opens bodies under each tenant's own key, and authenticates with the store's own keys."""

    async def key_for_saving(self, tenant: str, active: StoredKey | None) -> bytes:
        """Return the id of the tenant's active key, made now if there is none, ready to seal."""

    def seal(self, plain: bytes, context: SealContext, *, key_id: bytes) -> bytes: ...

    async def open(self, sealed: bytes, context: SealContext, *, key: StoredKey | None = None) -> bytes:
        """Open what was sealed; asks the store for the key unless it is at hand. Raises `SealBroken`."""

    async def is_erased(self, sealed: bytes) -> bool:
        """Whether the key that something was sealed under was destroyed."""

    def mac(self, purpose: str, data: bytes) -> bytes:
        """HMAC-SHA256 under the store's key of that purpose: audit or idempotency."""

    def sign(self, data: bytes) -> bytes:
        """Ed25519 (RFC 8032) under the store's own key."""

    def has_signed(self, data: bytes, signature: bytes) -> bool: ...

    @property
    def public_key(self) -> bytes: ...

    def forget(self, key_ids: Sequence[bytes]) -> None:
        """Never open under these again, in this life of the store or a restored one."""
