"""A disk that is full while a key file is written leaves no incomplete file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from confide.crypto.master_keys import DestroyedKeys, create_master_key, write_master_keys


def test_a_full_disk_leaves_the_list_of_destroyed_keys_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "destroyed.keys", os.write
    known = DestroyedKeys(path)
    known.add([b"a" * 16])

    def write_until_full(descriptor: int, content: bytes) -> int:
        if len(content) < 33:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[:10])

    monkeypatch.setattr(os, "write", write_until_full)
    with pytest.raises(OSError, match="No space"):
        known.add([b"b" * 16])
    monkeypatch.undo()
    assert DestroyedKeys(path).read_ids() == {b"a" * 16}
    known.add([b"c" * 16])
    assert DestroyedKeys(path).read_ids() == {b"a" * 16, b"c" * 16}


def test_a_full_disk_leaves_no_incomplete_file_of_master_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_master_keys(tmp_path / "master.keys", [create_master_key()])
    assert list(tmp_path.iterdir()) == []
