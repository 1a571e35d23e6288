"""Create and hash tokens: 256 random bits with a prefix and a checksum; only a hash is stored."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import zlib

PREFIX = "cfd_"
_BITS = 256
_TOKEN = re.compile(r"cfd_([A-Za-z0-9_-]{43})([0-9a-f]{8})")


def generate_token() -> str:
    body = base64.urlsafe_b64encode(secrets.token_bytes(_BITS // 8)).rstrip(b"=").decode()
    return PREFIX + body + _compute_checksum(body)


def hash_token(token: str) -> bytes | None:
    """Return the stored hash of a token, or None if its format or checksum is invalid."""
    parts = _TOKEN.fullmatch(token)
    if parts is None or _compute_checksum(parts[1]) != parts[2]:
        return None
    return hashlib.sha256(token.encode()).digest()


def _compute_checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
