"""Signatures of checkpoints, and the file that keeps them outside the store."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from confide.audit.chain import Checkpoint, read_checkpoint, write_checkpoint


def is_signed(checkpoint: Checkpoint, public_key: bytes) -> bool:
    """Whether the holder of a key signed it (Ed25519, RFC 8032)."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(checkpoint.signature, checkpoint.signed_bytes())
    except (InvalidSignature, ValueError):
        return False
    return True


class CheckpointFile:
    """The second place of checkpoints, which whoever has the store's database should not have."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint down; on the disk before this returns. Raises `OSError`."""
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(descriptor, "r+b", buffering=0) as file:  # noqa: PTH123 - made for its owner only
            # After a line that was not written to its end a new one begins.
            is_torn = file.seek(0, os.SEEK_END) > 0 and os.pread(descriptor, 1, file.tell() - 1) != b"\n"
            left = b"\n" * is_torn + write_checkpoint(checkpoint) + b"\n"
            while left:
                left = left[file.write(left) or 0 :]
            os.fsync(descriptor)

    def read(self) -> list[Checkpoint]:
        """What was written down; lines that are none are left out."""
        if not self._path.exists():
            return []
        return [found for line in self._path.read_bytes().splitlines() if (found := read_checkpoint(line)) is not None]
