"""Files that commands write. Only their owner can read them, because they name tenants, users and hosts."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import BinaryIO

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
_OWNER_ONLY = 0o600


def create_file(path: Path) -> BinaryIO:
    """Create a file and open it for writing. Raises `FileExistsError` if it exists."""
    return os.fdopen(os.open(path, _NEW_FILE, _OWNER_ONLY), "wb")


def write_file(path: Path, text: str) -> None:
    """Write a text file, or replace an existing one in one rename. A device or a pipe gets the text as it is."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    target = path.resolve()
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with create_file(partial) as file:
            file.write(text.encode())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
