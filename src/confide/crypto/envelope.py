"""Envelope encryption: data keys encrypt configs, and master keys encrypt (wrap) data keys."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from confide.clock import Clock
from confide.crypto.ciphertext import KEY_BYTES, KEY_ID_BYTES, decrypt, encrypt, parse
from confide.crypto.errors import DecryptionFailed, MasterKeyMissing
from confide.crypto.master_keys import DestroyedKeys, MasterKeys
from confide.crypto.model import EncryptionContext, WrappedKey
from confide.database.signed_rows import RowSigner

if TYPE_CHECKING:
    from confide.crypto.store import DataKeyStore

TENANT_PURPOSE = "config"
AUDIT_PURPOSE = "audit"
SIGNING_PURPOSE = "checkpoint"
# Signs rows. Not the audit key, because callers choose data that the audit key signs.
ROWS_PURPOSE = "rows"
# The key of rows is first, because it signs the rows of the other keys.
SERVICE_PURPOSES = (ROWS_PURPOSE, AUDIT_PURPOSE, "idempotency", SIGNING_PURPOSE)
MAX_CIPHERS = 20_000


class EnvelopeEncryption:
    """Encrypts and decrypts with data keys. They are stored wrapped, and unwrapped only in memory."""

    def __init__(
        self,
        data_keys: DataKeyStore,
        rows: RowSigner,
        *,
        read_master_keys: Callable[[], MasterKeys],
        destroyed: DestroyedKeys,
        clock: Clock,
    ) -> None:
        self._data_keys = data_keys
        self._rows = rows
        self._read_master_keys = read_master_keys
        self._master_keys = read_master_keys()
        self._destroyed = destroyed
        self._clock = clock
        self._ciphers: OrderedDict[bytes, AESGCM] = OrderedDict()
        self._secrets: dict[str, bytes] = {}

    async def start(self) -> None:
        """Create the data keys of the service if they are missing, and unwrap them.

        Raises `MasterKeyMissing` if the key ring lacks their master key or has other bytes for it.
        """
        for purpose in SERVICE_PURPOSES:
            key = await self._find_or_create(purpose, "")
            self._secrets[purpose] = self._unwrap(key)
            if purpose == ROWS_PURPOSE:
                self._rows.use_key(self._secrets[purpose])
        self._signing_key = Ed25519PrivateKey.from_private_bytes(self._secrets[SIGNING_PURPOSE])
        self._verifying_key = self._signing_key.public_key()

    async def load_row_key(self) -> WrappedKey | None:
        """Unwrap the key of signed rows for a command that needs no other key. Return None if there is none."""
        key = await self._data_keys.find_active(ROWS_PURPOSE, "")
        if key is not None:
            self.use_row_key(key)
        return key

    def use_row_key(self, key: WrappedKey) -> None:
        """Unwrap the key of signed rows, of the database or of a backup. Raises `MasterKeyMissing`."""
        self._rows.use_key(self._unwrap(key))

    async def check_master_keys(self) -> None:
        """Unwrap one data key of each master key in use. Raises `MasterKeyMissing`."""
        stored = await self._data_keys.list_all()
        for key in {key.master_key_id: key for key in stored if key.wrapped is not None}.values():
            self._unwrap(key)

    async def remember_destroyed_keys(self, has_audit_entry: Callable[[str], Awaitable[bool]]) -> None:
        """Add erased data keys to the list of destroyed keys, if their tenant has an audit entry about that."""
        known = self._destroyed.read_ids()
        erased = [key for key in await self._data_keys.list_all() if key.wrapped is None and key.id not in known]
        tenants = {tenant for tenant in {key.tenant for key in erased} if await has_audit_entry(tenant)}
        if destroyed := [key.id for key in erased if key.tenant in tenants]:
            self._destroyed.add(destroyed)

    async def load_data_key(self, tenant: str, active: WrappedKey | None) -> bytes:
        """Load the active data key of a tenant for `encrypt`, and return its ID. Creates the key if there is none."""
        data_key = active or await self._find_or_create(TENANT_PURPOSE, tenant)
        if data_key.id not in self._ciphers:
            self._load_cipher(data_key)
        return data_key.id

    def encrypt(self, plain: bytes, context: EncryptionContext, *, data_key_id: bytes) -> bytes:
        return encrypt(plain, cipher=self._ciphers[data_key_id], key_id=data_key_id, bound_to=_bind_context(context))

    async def decrypt(
        self, encrypted: bytes, context: EncryptionContext, *, data_key: WrappedKey | None = None
    ) -> bytes:
        data_key_id = parse(encrypted).key_id
        if data_key_id in self._destroyed:
            raise DecryptionFailed
        if data_key_id not in self._ciphers:
            if data_key is None or data_key.id != data_key_id:
                data_key = await self._data_keys.read(data_key_id)
            if data_key is None or data_key.wrapped is None or data_key.tenant != context.config_key.tenant:
                raise DecryptionFailed
            self._load_cipher(data_key)
        self._ciphers.move_to_end(data_key_id)
        return decrypt(encrypted, cipher=self._ciphers[data_key_id], bound_to=_bind_context(context))

    async def is_erased(self, encrypted: bytes) -> bool:
        """Return whether the data key of a ciphertext was destroyed."""
        try:
            data_key_id = parse(encrypted).key_id
        except DecryptionFailed:
            return False  # the format is invalid, so there is no key ID
        if data_key_id in self._destroyed:
            return True
        data_key = await self._data_keys.read(data_key_id)
        return data_key is not None and data_key.wrapped is None

    def compute_mac(self, purpose: str, data: bytes) -> bytes:
        return hmac.digest(self._secrets[purpose], data, "sha256")

    def sign(self, data: bytes) -> bytes:
        return self._signing_key.sign(data)

    def is_signature_valid(self, data: bytes, signature: bytes) -> bool:
        try:
            self._verifying_key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @property
    def public_key(self) -> bytes:
        return self._verifying_key.public_bytes_raw()

    def forget_keys(self, data_key_ids: Sequence[bytes]) -> None:
        """Remove destroyed data keys from memory, and add them to the list of destroyed keys."""
        for data_key_id in data_key_ids:
            self._ciphers.pop(data_key_id, None)
        self._destroyed.add(data_key_ids)

    async def find_restored_tenants(self) -> list[str]:
        """List tenants whose destroyed data key is in the database again, from a restored backup."""
        stored = await self._data_keys.list_all()
        return sorted({key.tenant for key in stored if key.wrapped is not None and key.id in self._destroyed})

    async def is_rotated(self) -> bool:
        """Return whether the active master key already wraps every data key. Then a rotation needs a new master key."""
        return all(
            key.master_key_id == self._master_keys.active_id for key in await self._data_keys.list_all() if key.wrapped
        )

    async def rewrap_all(self) -> int:
        """Wrap every data key with the active master key, and return how many changed. Idempotent.

        The audit key is first, because the master key that wraps it also wraps new data keys.
        """
        count = 0
        for key in sorted(await self._data_keys.list_all(), key=lambda one: one.purpose != AUDIT_PURPOSE):
            if key.wrapped is None or key.master_key_id == self._master_keys.active_id:
                continue
            new = replace(key, master_key_id=self._master_keys.active_id)
            await self._data_keys.rewrap(
                replace(new, wrapped=self._wrap(new, self._unwrap(key))), instead_of=key.master_key_id
            )
            count += 1
        return count

    async def _find_or_create(self, purpose: str, tenant: str) -> WrappedKey:
        known = await self._data_keys.find_active(purpose, tenant)
        if known is not None:
            return known
        master_key_id = await self._find_master_key_id()
        new = WrappedKey(secrets.token_bytes(KEY_ID_BYTES), purpose, tenant, master_key_id, None)
        secret = secrets.token_bytes(KEY_BYTES)
        wrapped = self._wrap(new, secret)
        if purpose == ROWS_PURPOSE:
            self._rows.use_key(secret)  # it signs its own row
        return await self._data_keys.add_if_none(replace(new, wrapped=wrapped), made_at=self._clock())

    async def _find_master_key_id(self) -> bytes:
        """Return the ID of the master key that wraps the audit key. A new master key is unused before the rotation."""
        audit_key = await self._data_keys.find_active(AUDIT_PURPOSE, "")
        if audit_key is None:
            return self._master_keys.active_id
        self._reload_master_keys_for(audit_key.master_key_id)
        return audit_key.master_key_id

    def _reload_master_keys_for(self, master_key_id: bytes) -> None:
        if master_key_id not in self._master_keys:
            # An operator may have added a master key after the start of this process.
            self._master_keys = self._read_master_keys()

    def _load_cipher(self, key: WrappedKey) -> None:
        if key.id in self._destroyed or key.wrapped is None:
            raise DecryptionFailed
        self._ciphers[key.id] = AESGCM(self._unwrap(key))
        while len(self._ciphers) > MAX_CIPHERS:
            self._ciphers.popitem(last=False)

    def _wrap(self, key: WrappedKey, secret: bytes) -> bytes:
        cipher = self._master_keys.get_cipher(key.master_key_id)
        return encrypt(secret, cipher=cipher, key_id=key.master_key_id, bound_to=(key.id, key.purpose, key.tenant))

    def _unwrap(self, key: WrappedKey) -> bytes:
        self._reload_master_keys_for(key.master_key_id)
        cipher = self._master_keys.get_cipher(key.master_key_id)
        try:
            return decrypt(key.wrapped or b"", cipher=cipher, bound_to=(key.id, key.purpose, key.tenant))
        except DecryptionFailed:
            raise MasterKeyMissing(
                f"The bytes of master key {key.master_key_id.hex()} did not wrap the keys of this database."
            ) from None


def _bind_context(context: EncryptionContext) -> tuple[str, ...]:
    return (context.config_key.tenant, context.config_key.integration_type, str(context.version), context.kind)
