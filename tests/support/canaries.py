"""Test secrets with a common prefix, and a search that finds them in every encoding."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

MARK = "cnry-"
# Files in a folder of this name hold secrets on purpose.
SKIPPED_FOLDER = "deliberate-leaks"
# Files that may hold plaintext secrets: the master keys, and the token file of `confide login`.
ALLOWED = frozenset({"master.keys", "token.json"})


def make_canary(kind: str) -> str:
    """Make a unique test secret, such as a password, a token or a value."""
    return f"{MARK}{kind}-{secrets.token_hex(8)}"


def _encodings(mark: str) -> list[bytes]:
    plain = mark.encode()
    found = [plain, plain.hex().encode(), plain.hex().upper().encode(), mark.encode("utf-16-le")]
    for shift in range(3):
        # Only those base64 characters that do not depend on neighboring bytes.
        coded = base64.b64encode(b"\0" * shift + plain + b"\0\0")
        start, end = (shift * 8 + 5) // 6, (shift + len(plain)) * 8 // 6
        found.append(coded[start:end])
    found.append("".join(f"%{byte:02x}" for byte in plain).encode())
    found.append("".join(f"%{byte:02X}" for byte in plain).encode())
    return found


_PATTERN = re.compile(
    b"|".join(
        [*(re.escape(code) for code in _encodings(MARK)), rb"cfd_[A-Za-z0-9_-]{43}[0-9a-f]{8}"],
    )
)


# Digests of files without canaries: most files of a new PostgreSQL database are the same.
_CLEAN: set[bytes] = set()


def find_canary(data: bytes) -> bytes | None:
    """Find the first canary in these bytes, plain or encoded."""
    hit = _PATTERN.search(data)
    return data[max(0, hit.start() - 20) : hit.end() + 20] if hit else None


def search(files: Iterable[Path]) -> tuple[int, list[str]]:
    """Search files. Return the number of bytes read and each file with a canary."""
    size, found = 0, []
    for path in files:
        if path.name in ALLOWED:
            continue
        try:
            data = path.read_bytes()
        except OSError:
            continue
        size += len(data)
        if (digest := hashlib.sha256(data).digest()) in _CLEAN:
            continue
        if (hit := find_canary(data)) is None:
            _CLEAN.add(digest)
        else:
            found.append(f"{path}: {hit!r}")
    return size, found
