"""Small volumes that tests fill: a file system in memory, or ext4 in a file. They need root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.programs import require_program

MIB = 1024 * 1024
# The ballast leaves less than this, so that no page of a database fits.
MAX_LEFT_BYTES = 4_096


class Volume:
    """A mounted volume that a test fills with a file, and empties again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Write until the volume has no space left, in ever smaller pieces."""
        with self._ballast.open("ab", buffering=0) as file:
            for piece in (MIB, 64 * 1024, 4_096, 1):
                with suppress(OSError):
                    while file.write(bytes(piece)) == piece:
                        pass

    def free(self) -> None:
        self._ballast.unlink()


@contextmanager
def mount_volume(kind: str, root: Path, *, mib: int) -> Iterator[Volume]:
    """Mount a volume of this kind, `tmpfs` or `ext4`. Without the right to, skip the test; in CI, fail."""
    folder = root / "volume"
    folder.mkdir(parents=True)
    if kind == "tmpfs":
        _mount("-t", "tmpfs", "-o", f"size={mib}m,mode=777", "tmpfs", folder)
    else:
        image = root / "volume.img"
        with image.open("wb") as file:
            file.truncate(mib * MIB)
        # Small volumes have blocks of 1 KiB, smaller than a page of memory.
        make = require_program("mkfs.ext4", package="e2fsprogs")
        subprocess.run([make, "-q", "-m", "0", "-b", "1024", image], check=True)
        _mount("-o", "loop", image, folder)
    try:
        root.chmod(0o755)
        folder.chmod(0o777)
        yield Volume(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _mount(*args: str | Path) -> None:
    done = subprocess.run(["mount", *args], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    message = f"Cannot mount a small volume, which needs root: {done.stderr.strip()}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
