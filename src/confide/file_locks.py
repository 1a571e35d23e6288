"""Locks of files and folders, which the kernel releases when their process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def try_lock(path: Path, *, flags: int = os.O_CREAT | os.O_RDWR) -> int | None:
    """Return the descriptor of the locked file, or None if another process holds the lock.

    Closing the descriptor releases the lock. With the flag `O_CREAT`, a missing file is created.
    """
    lock = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def try_lock_folder(path: Path) -> int | None:
    """Like `try_lock`, for an existing folder."""
    return try_lock(path, flags=os.O_RDONLY | os.O_DIRECTORY)
