"""The file of the stamps, which all processes of a machine map into their memory."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import re
import stat
import struct
import time
import weakref
from pathlib import Path

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
# The C structure `flock` of 64-bit Linux: type, whence, start, length and process.
_RECORD_LOCK = struct.Struct("hhqqi4x")
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
        self._lock: _FileLock | None = None
        self.fault: str | None = None
        self.stamps = self._map() or Stamps(memoryview(bytearray(FILE_BYTES)).cast("Q"))

    def _map(self) -> Stamps | None:
        if self._path is None:
            return None
        try:
            lock = _FileLock(_open(self._path))
            _require_complete(lock)
            words = memoryview(mmap.mmap(lock.descriptor, FILE_BYTES)).cast("Q")
        except (OSError, ValueError) as error:
            self._report(describe_error(error))
            return None
        self._lock = lock
        return Stamps(words, lock=lock)

    def check(self) -> str | None:
        """Return why other processes do not share the stamps, or None. The file may have been removed meanwhile."""
        if self.fault is None and self._lock is not None and self._path is not None:
            mapped = os.fstat(self._lock.descriptor)
            try:
                found = self._path.stat()
            except OSError as error:
                self._report(describe_error(error))
            else:
                if (found.st_dev, found.st_ino) != (mapped.st_dev, mapped.st_ino):
                    self._report("The file was replaced. Restart all processes of this machine.")
        return self.fault

    def _report(self, reason: str) -> None:
        self.fault = reason
        _log.warning("stamps_unavailable file=%s reason=%s", self._path, reason)


class _FileLock:
    """An exclusive lock of the first word of the file, which it keeps open.

    The lock belongs to the open file description (fcntl(2), "Open file description locks"). An ordinary lock of a
    record would end when this process closes any other descriptor of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def try_to_acquire(self) -> bool:
        try:
            self._set(fcntl.F_WRLCK)
        except (BlockingIOError, PermissionError):  # fcntl(2) allows either for a lock of another process
            return False
        return True

    def release(self) -> None:
        self._set(fcntl.F_UNLCK)

    def _set(self, kind: int) -> None:
        fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _RECORD_LOCK.pack(kind, os.SEEK_SET, 0, 8, 0))


def _open(path: Path) -> int:
    """Open or create the file. Raises `OSError`."""
    file_system = find_file_system(path.parent)
    if file_system in NETWORK_FILE_SYSTEMS or file_system.startswith("fuse."):
        raise OSError(f"The folder is on a network file system ({file_system}).")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _require_complete(lock: _FileLock) -> None:
    """Allocate the blocks of the file if they are missing. Raises `OSError` if the file is of another kind or size."""
    if not stat.S_ISREG(os.fstat(lock.descriptor).st_mode):
        raise OSError("This is not a regular file.")
    if not _is_complete(lock.descriptor):
        _allocate(lock)
    if (size_bytes := os.fstat(lock.descriptor).st_size) != FILE_BYTES:
        raise OSError(f"The file has {size_bytes} bytes instead of {FILE_BYTES}.")


def _is_complete(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return status.st_size >= FILE_BYTES and status.st_blocks * STAT_BLOCK_BYTES >= FILE_BYTES


def _allocate(lock: _FileLock) -> None:
    """Allocate the blocks under the lock, so that a full disk can never end a process that writes a stamp."""
    deadline = time.monotonic() + MAX_LOCK_SECONDS
    while not lock.try_to_acquire():
        if time.monotonic() > deadline:
            raise OSError("Another process has locked the file for too long.")
        time.sleep(LOCK_POLL_SECONDS)
    try:
        # Another process may have allocated them meanwhile. On a file system without `fallocate`, the C library writes
        # to the blocks, which must not happen while other processes use the stamps.
        if not _is_complete(lock.descriptor):
            os.posix_fallocate(lock.descriptor, 0, FILE_BYTES)
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
