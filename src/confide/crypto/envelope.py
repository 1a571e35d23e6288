"""Tenant keys and the store's own: made once, wrapped by a master key, opened when first needed."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from confide.clock import Clock
from confide.crypto.ciphertext import KEY_BYTES, KEY_ID_BYTES, open_sealed, seal, split
from confide.crypto.errors import DecryptionFailed, MasterKeyMissing
from confide.crypto.master_keys import DestroyedKeys, MasterKeys
from confide.crypto.model import EncryptionContext, WrappedKey

if TYPE_CHECKING:
    from confide.crypto.store import DataKeyStore

TENANT_PURPOSE = "config"
LEADING_PURPOSE = "audit"
SIGNING_PURPOSE = "checkpoint"
STORE_PURPOSES = (LEADING_PURPOSE, "idempotency", SIGNING_PURPOSE)
MAX_OPENED = 20_000


class EnvelopeEncryption:
    """The sealer of the service: keys lie wrapped in the store and opened in memory."""

    def __init__(
        self, data_keys: DataKeyStore, *, ring: Callable[[], MasterKeys], destroyed: DestroyedKeys, clock: Clock
    ) -> None:
        self._data_keys = data_keys
        self._read_ring = ring
        self._ring = ring()
        self._destroyed = destroyed
        self._clock = clock
        self._opened: OrderedDict[bytes, AESGCM] = OrderedDict()
        self._secrets: dict[str, bytes] = {}

    async def start(self) -> None:
        """Make the store's own keys if there are none, and open them.

        Raises `MasterKeyMissing` if the store names a master key that the ring lacks or whose bytes are others.
        """
        for purpose in STORE_PURPOSES:
            key = await self._active(purpose, "")
            self._secrets[purpose] = self._unwrapped(key)
        self._signing_key = Ed25519PrivateKey.from_private_bytes(self._secrets[SIGNING_PURPOSE])
        self._verifying_key = self._signing_key.public_key()

    async def check_all(self) -> None:
        """Unwrap one key of each master key that the store names; raises `MasterKeyMissing`."""
        stored = await self._data_keys.all()
        for key in {key.master_key_id: key for key in stored if key.wrapped is not None}.values():
            self._unwrapped(key)
        erased = [key.id for key in stored if key.wrapped is None]
        if set(erased) - self._destroyed.ids():
            self._destroyed.add(erased)

    async def key_for_saving(self, tenant: str, active: WrappedKey | None) -> bytes:
        key = active or await self._active(TENANT_PURPOSE, tenant)
        if key.id not in self._opened:
            self._keep(key)
        return key.id

    def seal(self, plain: bytes, context: EncryptionContext, *, key_id: bytes) -> bytes:
        return seal(plain, key=self._opened[key_id], key_id=key_id, bound_to=_bound(context))

    async def open(self, sealed: bytes, context: EncryptionContext, *, key: WrappedKey | None = None) -> bytes:
        key_id = split(sealed).key_id
        if key_id in self._destroyed:
            raise DecryptionFailed
        if key_id not in self._opened:
            if key is None or key.id != key_id:
                key = await self._data_keys.read(key_id)
            if key is None or key.wrapped is None or key.tenant != context.key.tenant:
                raise DecryptionFailed
            self._keep(key)
        self._opened.move_to_end(key_id)
        return open_sealed(sealed, key=self._opened[key_id], bound_to=_bound(context))

    async def is_erased(self, sealed: bytes) -> bool:
        try:
            key_id = split(sealed).key_id
        except DecryptionFailed:
            return False  # what is no sealed body names no key
        if key_id in self._destroyed:
            return True
        key = await self._data_keys.read(key_id)
        return key is not None and key.wrapped is None

    def mac(self, purpose: str, data: bytes) -> bytes:
        return hmac.digest(self._secrets[purpose], data, "sha256")

    def sign(self, data: bytes) -> bytes:
        return self._signing_key.sign(data)

    def has_signed(self, data: bytes, signature: bytes) -> bool:
        try:
            self._verifying_key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @property
    def public_key(self) -> bytes:
        return self._verifying_key.public_bytes_raw()

    def forget(self, key_ids: Sequence[bytes]) -> None:
        for key_id in key_ids:
            self._opened.pop(key_id, None)
        self._destroyed.add(key_ids)

    async def undead_tenants(self) -> list[str]:
        """Tenants whose destroyed key a restored backup brought back."""
        stored = await self._data_keys.all()
        return sorted({key.tenant for key in stored if key.wrapped is not None and key.id in self._destroyed})

    async def is_all_under_last(self) -> bool:
        """Whether the last master key of the ring wraps every key, so that a new one is wanted."""
        return all(key.master_key_id == self._ring.active for key in await self._data_keys.all() if key.wrapped)

    async def rewrap_all(self) -> int:
        """Wrap every key under the last master key of the ring; returns how many. May be repeated.

        The audit key goes first: new keys are wrapped by whichever master key wraps that one.
        """
        count = 0
        for key in sorted(await self._data_keys.all(), key=lambda one: one.purpose != LEADING_PURPOSE):
            if key.wrapped is None or key.master_key_id == self._ring.active:
                continue
            new = replace(key, master_key_id=self._ring.active)
            await self._data_keys.rewrap(
                replace(new, wrapped=self._wrapped(new, self._unwrapped(key))), instead_of=key.master_key_id
            )
            count += 1
        return count

    async def _active(self, purpose: str, tenant: str) -> WrappedKey:
        known = await self._data_keys.active(purpose, tenant)
        if known is not None:
            return known
        master_key_id = await self._master_key_in_use()
        new = WrappedKey(secrets.token_bytes(KEY_ID_BYTES), purpose, tenant, master_key_id, None)
        wrapped = self._wrapped(new, secrets.token_bytes(KEY_BYTES))
        return await self._data_keys.add_if_none(replace(new, wrapped=wrapped), made_at=self._clock())

    async def _master_key_in_use(self) -> bytes:
        """The master key that wraps the store's audit key; a prepared one wraps nothing before it is rotated in."""
        leading = await self._data_keys.active(LEADING_PURPOSE, "")
        if leading is None:
            return self._ring.active
        self._read_ring_for(leading.master_key_id)
        return leading.master_key_id

    def _read_ring_for(self, master_key_id: bytes) -> None:
        if master_key_id not in self._ring:
            # Perhaps a new master key came while this process was running.
            self._ring = self._read_ring()

    def _keep(self, key: WrappedKey) -> None:
        if key.id in self._destroyed or key.wrapped is None:
            raise DecryptionFailed
        self._opened[key.id] = AESGCM(self._unwrapped(key))
        while len(self._opened) > MAX_OPENED:
            self._opened.popitem(last=False)

    def _wrapped(self, key: WrappedKey, secret: bytes) -> bytes:
        cipher = self._ring.cipher(key.master_key_id)
        return seal(secret, key=cipher, key_id=key.master_key_id, bound_to=(key.id, key.purpose, key.tenant))

    def _unwrapped(self, key: WrappedKey) -> bytes:
        self._read_ring_for(key.master_key_id)
        cipher = self._ring.cipher(key.master_key_id)
        try:
            return open_sealed(key.wrapped or b"", key=cipher, bound_to=(key.id, key.purpose, key.tenant))
        except DecryptionFailed:
            raise MasterKeyMissing(
                f"The master key {key.master_key_id.hex()} is not the one that the store was sealed with."
            ) from None


def _bound(context: EncryptionContext) -> tuple[str, ...]:
    return (context.key.tenant, context.key.integration_type, str(context.version), context.kind)
