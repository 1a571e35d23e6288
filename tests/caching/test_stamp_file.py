"""The file of the stamps: shared by processes, never truncated or replaced, and never a reason to crash."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from confide.caching import stamp_file
from confide.caching.stamp_file import FILE_BYTES, StampFile, find_file_system

SLOT = 1_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stamps"


def test_a_new_file_is_complete_allocated_and_readable_only_by_its_owner(path: Path) -> None:
    file = StampFile(path)
    assert file.check() is None
    status = path.stat()
    assert (status.st_size, status.st_mode & 0o777) == (FILE_BYTES, 0o600)
    assert status.st_blocks * 512 >= FILE_BYTES


def test_another_process_sees_a_stamp_at_once_and_keeps_the_file(path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from confide.caching.stamp_file import StampFile
file = StampFile(Path(sys.argv[1]))
assert file.fault is None, file.fault
file.stamps.words[{SLOT}] += 2
"""
    file = StampFile(path)
    file.stamps.words[SLOT] = 40
    inode = path.stat().st_ino
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    assert file.stamps.words[SLOT] == 42
    assert path.stat().st_ino == inode
    again = StampFile(path)
    assert again.stamps.words[SLOT] == 42


def test_a_file_whose_creation_was_interrupted_is_completed(path: Path) -> None:
    path.write_bytes(b"\0" * 100)
    file = StampFile(path)
    assert file.check() is None
    assert path.stat().st_size == FILE_BYTES


def test_a_sparse_copy_of_the_file_gets_its_blocks_and_keeps_its_stamps(path: Path) -> None:
    file = StampFile(path)
    file.stamps.words[SLOT] = 42
    os.truncate(path, 9_000)  # as a copy that leaves out what was never written
    os.truncate(path, FILE_BYTES)
    assert path.stat().st_blocks * 512 < FILE_BYTES
    file = StampFile(path)
    assert path.stat().st_blocks * 512 >= FILE_BYTES
    assert file.stamps.words[SLOT] == 42


def refuse_space(descriptor: int, start: int, length: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "obstacle", ["too long", "folder", "link", "pipe", "unreadable", "full disk", "network", "missing folder"]
)
def test_a_file_that_cannot_be_shared_is_reported_and_leaves_private_stamps(
    path: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    match obstacle:
        case "too long":
            path.write_bytes(b"\0" * (FILE_BYTES + 8))
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(path.with_name("elsewhere"))
        case "pipe":
            os.mkfifo(path)
        case "unreadable":
            path.write_bytes(b"")
            refuse = OSError(errno.EACCES, "Permission denied")
            monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(refuse))
        case "full disk":
            monkeypatch.setattr(os, "posix_fallocate", refuse_space)
        case "network":
            mounts = path.with_name("mounts")
            mounts.write_text(f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {path.parent} rw shared:1 - nfs4 server rw\n")
            monkeypatch.setattr(stamp_file, "MOUNTS", mounts)
        case "missing folder":
            path = path / "missing" / "stamps"
    file = StampFile(path)
    assert file.fault is not None
    assert file.check() == file.fault
    assert f"stamps_unavailable file={path} reason=" in caplog.text
    # The stamps still work within this process.
    before = file.stamps.take(SLOT)
    assert file.stamps.is_current(before)
    file.stamps.stamp_unlocked([])
    assert len(file.stamps.words) * 8 == FILE_BYTES
    if obstacle == "too long":
        assert path.stat().st_size == FILE_BYTES + 8  # never truncated


def test_a_removed_or_replaced_file_is_reported_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = StampFile(path)
    path.unlink()
    assert file.check()
    assert file.check()
    assert caplog.text.count("stamps_unavailable") == 1
    first = StampFile(path)
    path.rename(path.with_name("old"))
    second = StampFile(path)
    assert second.check() is None
    assert first.check() == "The file was replaced. Restart all processes of this machine."


def test_only_one_opening_of_the_file_has_the_lock(path: Path) -> None:
    first, second, third = StampFile(path), StampFile(path), StampFile(path)
    locks = [file.stamps._lock for file in (first, second)]
    assert locks[0].try_to_acquire()
    assert not locks[1].try_to_acquire()
    # Another descriptor of the file ends without ending the lock.
    del third
    gc.collect()
    assert not locks[1].try_to_acquire()
    locks[0].release()
    assert locks[1].try_to_acquire()


def test_without_a_path_no_file_is_created_and_nothing_is_reported() -> None:
    file = StampFile(None)
    assert file.check() is None


def test_the_file_system_of_a_folder_is_found_through_escaped_and_covered_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "1 0 0:1 / / rw - ext4 x rw\n"
        "2 1 0:2 / /srv/a\\040b rw - autofs x rw\n"
        "3 2 0:3 / /srv/a\\040b rw master:1 - nfs x rw\n"
        "4 1 0:4 / /srv/a rw - xfs x rw\n"
    )
    monkeypatch.setattr(stamp_file, "MOUNTS", mounts)
    assert find_file_system(Path("/srv/a b/c")) == "nfs"
    assert find_file_system(Path("/srv/a/b")) == "xfs"
    assert find_file_system(Path("/srv")) == "ext4"
    monkeypatch.setattr(stamp_file, "MOUNTS", tmp_path / "none")
    assert find_file_system(Path("/srv")) == ""


FILL_DISK = """
import sys
from pathlib import Path
from confide.caching.stamp_file import FILE_BYTES, StampFile
folder = Path(sys.argv[1])
file = StampFile(folder / "stamps")
assert file.fault is None, file.fault
try:
    (folder / "rest").write_bytes(b"x" * 4 * FILE_BYTES)
except OSError as error:
    print(error.strerror)
for word in range(0, FILE_BYTES // 8, 512):
    file.stamps.words[word] = 2
print("alive")
"""


def test_a_full_disk_does_not_end_a_process_that_writes_a_stamp(tmp_path: Path) -> None:
    # A namespace of its own, so that the small file system ends with the process.
    alone = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        if os.environ.get("CI"):
            pytest.fail("unshare cannot create a mount namespace")
        pytest.skip("unshare cannot create a mount namespace")
    mount = f"mount -t tmpfs -o size=2m none '{tmp_path}' && exec \"$@\""
    command = [sys.executable, "-c", FILL_DISK, str(tmp_path)]
    done = subprocess.run([*alone, "sh", "-c", mount, "sh", *command], capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines(), done.returncode) == (["No space left on device", "alive"], 0), done.stderr
