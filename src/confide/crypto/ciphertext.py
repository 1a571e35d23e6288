"""The ciphertext format: AES-256-GCM, bound to its row by associated data."""

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
_HEADER_BYTES = 1 + KEY_ID_BYTES + NONCE_BYTES


class EncryptedParts(NamedTuple):
    """The parts of format 1: `0x01 ‖ key ID (16 bytes) ‖ nonce (12 bytes) ‖ ciphertext and tag`."""

    key_id: bytes
    nonce: bytes
    ciphertext: bytes


def encrypt(plain: bytes, *, cipher: AESGCM, key_id: bytes, bound_to: tuple[str | bytes, ...]) -> bytes:
    """Encrypt with a random nonce. Decryption needs the same values in `bound_to`."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    ciphertext = cipher.encrypt(nonce, plain, build_associated_data(key_id, bound_to))
    return bytes((FORMAT,)) + key_id + nonce + ciphertext


def decrypt(encrypted: bytes, *, cipher: AESGCM, bound_to: tuple[str | bytes, ...]) -> bytes:
    """Decrypt and verify. Raises `DecryptionFailed`, which does not say why."""
    parts = parse(encrypted)
    try:
        return cipher.decrypt(parts.nonce, parts.ciphertext, build_associated_data(parts.key_id, bound_to))
    except InvalidTag:
        raise DecryptionFailed from None


def parse(encrypted: bytes) -> EncryptedParts:
    """Return the parts without decrypting. Raises `DecryptionFailed` for any other format."""
    if len(encrypted) < _HEADER_BYTES + TAG_BYTES or encrypted[0] != FORMAT:
        raise DecryptionFailed
    at = 1 + KEY_ID_BYTES
    return EncryptedParts(encrypted[1:at], encrypted[at:_HEADER_BYTES], encrypted[_HEADER_BYTES:])


def build_associated_data(key_id: bytes, bound_to: tuple[str | bytes, ...]) -> bytes:
    """Concatenate format, key ID and the bound values, each after its length (4 bytes, big-endian)."""
    parts = [_FORMAT, len(key_id).to_bytes(4, "big"), key_id]
    for bound in bound_to:
        part = bound.encode() if isinstance(bound, str) else bound
        parts += (len(part).to_bytes(4, "big"), part)
    return b"".join(parts)
