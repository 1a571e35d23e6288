"""The ciphertext format: AES-256-GCM with the identity of the row as associated data."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from confide.crypto.errors import DecryptionFailed

FORMAT = 1
KEY_BYTES = 32
KEY_ID_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
# The format as a length-prefixed part of the associated data.
_FORMAT = b"\0\0\0\x01" + bytes((FORMAT,))
_HEAD_BYTES = 1 + KEY_ID_BYTES + NONCE_BYTES


class Parts(NamedTuple):
    """Format 1: `0x01 ‖ key id (16 bytes) ‖ nonce (12) ‖ ciphertext and tag`."""

    key_id: bytes
    nonce: bytes
    ciphertext: bytes


def encrypt(plain: bytes, *, key: AESGCM, key_id: bytes, bound_to: tuple[str | bytes, ...]) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    ciphertext = key.encrypt(nonce, plain, authenticated(key_id, bound_to))
    return bytes((FORMAT,)) + key_id + nonce + ciphertext


def decrypt(encrypted: bytes, *, key: AESGCM, bound_to: tuple[str | bytes, ...]) -> bytes:
    """Decrypt and verify; raises the same `DecryptionFailed` for every reason."""
    parts = split(encrypted)
    try:
        return key.decrypt(parts.nonce, parts.ciphertext, authenticated(parts.key_id, bound_to))
    except InvalidTag:
        raise DecryptionFailed from None


def split(encrypted: bytes) -> Parts:
    if len(encrypted) < _HEAD_BYTES + TAG_BYTES or encrypted[0] != FORMAT:
        raise DecryptionFailed
    at = 1 + KEY_ID_BYTES
    return Parts(encrypted[1:at], encrypted[at:_HEAD_BYTES], encrypted[_HEAD_BYTES:])


def authenticated(key_id: bytes, bound_to: tuple[str | bytes, ...]) -> bytes:
    """Return the associated data: format, key id and the bound values, each with its length as a prefix."""
    parts = [_FORMAT, len(key_id).to_bytes(4, "big"), key_id]
    for bound in bound_to:
        part = bound.encode() if isinstance(bound, str) else bound
        parts += (len(part).to_bytes(4, "big"), part)
    return b"".join(parts)
