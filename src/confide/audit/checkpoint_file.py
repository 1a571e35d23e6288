"""Verify signatures of checkpoints, and keep checkpoints in a file outside the database."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from confide.audit.chain import Checkpoint, Removal, format_checkpoint, parse_checkpoint

# A line has 320 bytes without its two numbers, which have at most 19 digits each.
MAX_LINE_BYTES = 360


def has_valid_signature(signed: Checkpoint | Removal, public_key: bytes) -> bool:
    """Return whether the signature of a checkpoint or a removal is valid for a public key (Ed25519, RFC 8032)."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signed.signature, signed.encode_signed_part())
    except (InvalidSignature, ValueError):
        return False
    return True


class CheckpointFile:
    """A file of checkpoints. Keep it out of reach of people who can write to the database."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, checkpoint: Checkpoint) -> None:
        """Append a checkpoint and sync it to disk; raises `OSError`."""
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(descriptor, "r+b", buffering=0) as file:  # noqa: PTH123 - opened by descriptor, to set its mode
            # A crash may have left an incomplete last line.
            is_incomplete = file.seek(0, os.SEEK_END) > 0 and os.pread(descriptor, 1, file.tell() - 1) != b"\n"
            remaining = b"\n" * is_incomplete + format_checkpoint(checkpoint) + b"\n"
            while remaining:
                remaining = remaining[file.write(remaining) or 0 :]
            os.fsync(descriptor)

    def read_last(self, count: int) -> list[Checkpoint]:
        """Read the last checkpoints without reading the whole file. Skip invalid lines."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - count * MAX_LINE_BYTES))
            lines = file.read().splitlines()
        return [parsed for line in lines if (parsed := parse_checkpoint(line)) is not None][-count:]

    def read(self) -> list[Checkpoint]:
        """Read all checkpoints. Skip invalid lines."""
        if not self._path.exists():
            return []
        return [
            parsed for line in self._path.read_bytes().splitlines() if (parsed := parse_checkpoint(line)) is not None
        ]
