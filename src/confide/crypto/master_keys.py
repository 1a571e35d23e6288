"""Keys outside the database: the ring of master keys with its file, and the list of destroyed data keys."""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from confide.crypto.ciphertext import KEY_BYTES, KEY_ID_BYTES
from confide.crypto.errors import MasterKeyMissing

FILE_NAME = "master.keys"
DESTROYED_NAME = "destroyed.keys"


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A key that wraps data keys. Its `repr` hides the secret."""

    id: bytes
    secret: bytes = field(repr=False)

    def format_line(self) -> str:
        return f"{self.id.hex()} {base64.b64encode(self.secret).decode()}"


class MasterKeys:
    """The key ring: all master keys in use. The last one is active.

    Each line, or each item between commas, is `id base64`. Raises `MasterKeyMissing` for anything else.
    """

    def __init__(self, text: str) -> None:
        keys = [_parse(line) for line in text.replace(",", "\n").splitlines() if line.strip()]
        if not keys:
            raise MasterKeyMissing("The key ring is empty. Restore master.keys from your backup.")
        self._keys = {key.id: key for key in keys}
        if len(self._keys) != len(keys):
            raise MasterKeyMissing("The key ring contains an ID twice. Remove one of the two.")
        self._ciphers = {key.id: AESGCM(key.secret) for key in keys}
        self.active_id = keys[-1].id

    def __contains__(self, key_id: bytes) -> bool:
        return key_id in self._keys

    def get_cipher(self, key_id: bytes) -> AESGCM:
        if key_id not in self._ciphers:
            raise MasterKeyMissing(
                f"The key ring lacks master key {key_id.hex()}, which the database uses. Add it to the ring."
            )
        return self._ciphers[key_id]


def create_master_key() -> MasterKey:
    return MasterKey(secrets.token_bytes(KEY_ID_BYTES), secrets.token_bytes(KEY_BYTES))


def read_master_keys(path: Path) -> str:
    """Read the text of the master key file, also with a byte order mark.

    Raises `MasterKeyMissing` if the file is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise MasterKeyMissing(f"{path} is not UTF-8 text. Save it as UTF-8.") from None


def write_master_keys(path: Path, keys: Iterable[MasterKey]) -> None:
    """Create the master key file with mode 0600 and sync it to disk. Raises `FileExistsError`."""
    _write_new_file(path, "".join(f"{key.format_line()}\n" for key in keys))
    _sync_folder(path.parent)


def _write_new_file(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        path.unlink()  # an incomplete file would stop the next start
        raise


def append_master_key(path: Path, key: MasterKey) -> None:
    """Append a master key by atomic replacement of the file.

    The caller must hold `lock_rotation`. Raises `MasterKeyMissing` and changes nothing if the file is not a key ring.
    """
    known = read_master_keys(path)
    MasterKeys(known)
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    _write_new_file(new, f"{known.rstrip()}\n{key.format_line()}\n")
    new.rename(path)
    _sync_folder(path.parent)


@contextmanager
def lock_rotation(folder: Path) -> Iterator[None]:
    """Hold the lock that serializes the rotations of a folder's master keys."""
    descriptor = os.open(folder / "rotation.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# The minimum time between checks of the file for changes.
CHECK_SECONDS = 0.1


class DestroyedKeys:
    """The list of destroyed data keys, which stay unusable even if a restored backup contains them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: frozenset[bytes] = frozenset()
        self._file_state: tuple[int, int] | None = None
        self._checked_at = 0.0

    def __contains__(self, key_id: bytes) -> bool:
        """Return whether a key was on the list at the last check. The database erases destroyed keys too."""
        now = time.monotonic()
        if now - self._checked_at > CHECK_SECONDS:
            self._checked_at = now
            return key_id in self.read_ids()
        return key_id in self._ids

    def read_ids(self) -> frozenset[bytes]:
        """Return all IDs. Reads the file again if it has changed."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return frozenset()
        state = (stat.st_mtime_ns, stat.st_size)
        if state != self._file_state:
            self._ids = frozenset(bytes.fromhex(line) for line in self._path.read_text().split())
            self._file_state = state
        return self._ids

    def add(self, key_ids: Iterable[bytes]) -> None:
        """Append IDs and sync them to disk."""
        with self._open_locked() as descriptor:
            missing = sorted(set(key_ids) - self.read_ids())
            size_bytes = os.fstat(descriptor).st_size
            remaining = b"".join(key_id.hex().encode() + b"\n" for key_id in missing)
            try:
                while remaining:  # a nearly full disk accepts a part
                    remaining = remaining[os.write(descriptor, remaining) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size_bytes)
                raise
        _sync_folder(self._path.parent)
        self._checked_at = 0.0

    @contextmanager
    def _open_locked(self) -> Iterator[int]:
        descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _parse(line: str) -> MasterKey:
    key_id, _, secret = line.strip().partition(" ")
    try:
        key = MasterKey(bytes.fromhex(key_id), base64.b64decode(secret.strip(), validate=True))
    except (ValueError, binascii.Error):
        raise MasterKeyMissing("Invalid master key. Write it as `id base64`.") from None
    if len(key.id) != KEY_ID_BYTES or len(key.secret) != KEY_BYTES:
        raise MasterKeyMissing("Invalid master key. A key has 32 bytes, and its ID has 16 bytes.")
    return key
