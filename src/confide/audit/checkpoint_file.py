"""Verify signatures of checkpoints, and keep checkpoints in a file outside the database."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from confide.audit.chain import Checkpoint, read_checkpoint, write_checkpoint


def is_signed(checkpoint: Checkpoint, public_key: bytes) -> bool:
    """Return whether a checkpoint's signature is valid for a public key (Ed25519, RFC 8032)."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(checkpoint.signature, checkpoint.signed_bytes())
    except (InvalidSignature, ValueError):
        return False
    return True


class CheckpointFile:
    """A file of checkpoints; people with access to the database should not be able to write it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, checkpoint: Checkpoint) -> None:
        """Append a checkpoint and sync it to disk before returning; raises `OSError`."""
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(descriptor, "r+b", buffering=0) as file:  # noqa: PTH123 - opened by descriptor, to set its mode
            # A crash may have left an incomplete last line.
            is_torn = file.seek(0, os.SEEK_END) > 0 and os.pread(descriptor, 1, file.tell() - 1) != b"\n"
            left = b"\n" * is_torn + write_checkpoint(checkpoint) + b"\n"
            while left:
                left = left[file.write(left) or 0 :]
            os.fsync(descriptor)

    def read(self) -> list[Checkpoint]:
        """Read all checkpoints, skipping invalid lines."""
        if not self._path.exists():
            return []
        return [found for line in self._path.read_bytes().splitlines() if (found := read_checkpoint(line)) is not None]
