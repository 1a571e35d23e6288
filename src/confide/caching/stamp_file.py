"""The file of the stamps, which all processes of a machine map into their memory."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import re
import stat
import time
from pathlib import Path
from typing import IO

from confide.caching.stamps import LOCK_POLL_SECONDS, MAX_LOCK_SECONDS, WORD_COUNT, Stamps
from confide.errors import describe_error

FILE_NAME = "stamps"
FILE_BYTES = 8 * WORD_COUNT
# `st_blocks` counts in this unit, whatever the file system uses (stat(2)).
STAT_BLOCK_BYTES = 512
MOUNTS = Path("/proc/self/mountinfo")
# A mapping of a file on these is not coherent: the page of another machine can replace words that were written here.
NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
        *("ocfs2", "orangefs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"),
    }
)
_OCTAL = re.compile(r"\\([0-7]{3})")

_log = logging.getLogger("confide")


class StampFile:
    """The stamps of one database on one machine, in a file that is never truncated or replaced.

    If the file cannot be shared, `stamps` belong to this process alone and `fault` says why. Then only the change feed
    connects the caches of processes.
    """

    def __init__(self, path: Path | None) -> None:
        """Map the file, and create it if it is missing. Without a path, no other process shares the stamps."""
        self._path = path
        self._file: IO[bytes] | None = None
        self.fault: str | None = None
        self.stamps = self._map() or Stamps(memoryview(bytearray(FILE_BYTES)).cast("Q"))

    def _map(self) -> Stamps | None:
        if self._path is None:
            return None
        try:
            self._file = _open(self._path)
            words = memoryview(mmap.mmap(self._file.fileno(), FILE_BYTES)).cast("Q")
        except (OSError, ValueError) as error:
            self.close()
            self._report(describe_error(error))
            return None
        return Stamps(words, lock=_FileLock(self._file))

    def check(self) -> str | None:
        """Return why other processes do not share the stamps, or None. The file may have been removed meanwhile."""
        if self.fault is None and self._file is not None and self._path is not None:
            mapped = os.fstat(self._file.fileno())
            try:
                found = self._path.stat()
            except OSError as error:
                self._report(describe_error(error))
            else:
                if (found.st_dev, found.st_ino) != (mapped.st_dev, mapped.st_ino):
                    self._report("The file was replaced. Restart all processes of this machine.")
        return self.fault

    def close(self) -> None:
        # The mapping ends with the last object that uses it.
        if self._file is not None:
            self._file.close()
            self._file = None

    def _report(self, reason: str) -> None:
        self.fault = reason
        _log.warning("stamps_unavailable file=%s reason=%s", self._path, reason)


class _FileLock:
    """An exclusive lock of the first word of the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def try_to_acquire(self) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 8)
        except (BlockingIOError, PermissionError):  # fcntl(2) allows either for a lock of another process
            return False
        return True

    def release(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 8)


def _open(path: Path) -> IO[bytes]:
    """Open the file with all of its blocks allocated. Raises `OSError`."""
    file_system = find_file_system(path.parent)
    if file_system in NETWORK_FILE_SYSTEMS or file_system.startswith("fuse."):
        raise OSError(f"The data folder is on a network file system ({file_system}).")
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+b", buffering=0)
    try:
        _require_complete(file)
    except BaseException:
        file.close()
        raise
    return file


def _require_complete(file: IO[bytes]) -> None:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise OSError("This is not a regular file.")
    if not _is_complete(file.fileno()):
        _allocate(file)
    if (size_bytes := os.fstat(file.fileno()).st_size) != FILE_BYTES:
        raise OSError(f"The file has {size_bytes} bytes instead of {FILE_BYTES}.")


def _is_complete(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return status.st_size >= FILE_BYTES and status.st_blocks * STAT_BLOCK_BYTES >= FILE_BYTES


def _allocate(file: IO[bytes]) -> None:
    """Allocate the blocks under the lock, so that a full disk can never end a process that writes a stamp."""
    lock, deadline = _FileLock(file), time.monotonic() + MAX_LOCK_SECONDS
    while not lock.try_to_acquire():
        if time.monotonic() > deadline:
            raise OSError("Another process has locked the file for too long.")
        time.sleep(LOCK_POLL_SECONDS)
    try:
        # Another process may have allocated them meanwhile. On a file system without `fallocate`, the C library writes
        # to the blocks, which must not happen while other processes use the stamps.
        if not _is_complete(file.fileno()):
            os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
    finally:
        lock.release()


def find_file_system(folder: Path) -> str:
    """Return the type of the file system of a folder, such as `ext4` (proc(5), "mountinfo"). Empty if unknown."""
    folder = folder.resolve()
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    found = (Path("/"), "")
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), mount.split(" ")[4]))
        # Of several mounts on one folder, the last one is visible.
        if folder.is_relative_to(point) and len(point.parts) >= len(found[0].parts):
            found = (point, source.split(" ")[0])
    return found[1]
