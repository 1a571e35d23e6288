"""Master keys: the ring that stands outside the store, its file, and the list of destroyed keys beside it."""

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
    """A key that wraps other keys; its bytes are never shown."""

    id: bytes
    secret: bytes = field(repr=False)

    def line(self) -> str:
        return f"{self.id.hex()} {base64.b64encode(self.secret).decode()}"


class MasterKeys:
    """The ring: all master keys that still open something, the last one active.

    Raises `MasterKeyMissing` for a ring that is not written as `id base64`, one a line or comma-separated.
    """

    def __init__(self, text: str) -> None:
        keys = [_read(line) for line in text.replace(",", "\n").splitlines() if line.strip()]
        if not keys:
            raise MasterKeyMissing("The ring of master keys is empty.")
        self._keys = {key.id: key for key in keys}
        if len(self._keys) != len(keys):
            raise MasterKeyMissing("The ring of master keys names one id twice.")
        self._ciphers = {key.id: AESGCM(key.secret) for key in keys}
        self.active = keys[-1].id

    def __contains__(self, key_id: bytes) -> bool:
        return key_id in self._keys

    def cipher(self, key_id: bytes) -> AESGCM:
        if key_id not in self._ciphers:
            raise MasterKeyMissing(f"The ring lacks the master key {key_id.hex()}, which the store names.")
        return self._ciphers[key_id]


def new_master_key() -> MasterKey:
    return MasterKey(secrets.token_bytes(KEY_ID_BYTES), secrets.token_bytes(KEY_BYTES))


def make_file(path: Path, keys: Iterable[MasterKey]) -> None:
    """Create the file of master keys, mode 0600, on the disk before this returns; never over another."""
    make_text_file(path, "".join(f"{key.line()}\n" for key in keys))
    sync_folder(path.parent)


def make_text_file(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def add_to_file(path: Path, key: MasterKey) -> None:
    """Put a new last line in the file: afterwards it is the old file or the new one, never half of it.

    Only for who holds `rotating`. Raises `MasterKeyMissing`, and changes nothing, if what is there is no ring.
    """
    known = path.read_text()
    MasterKeys(known)
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    make_text_file(new, f"{known.rstrip()}\n{key.line()}\n")
    new.rename(path)
    sync_folder(path.parent)


@contextmanager
def rotating(folder: Path) -> Iterator[None]:
    """One rotation of a folder's master keys at a time."""
    descriptor = os.open(folder / "rotation.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# How often the file is looked at while keys are used.
ASK_SECONDS = 0.1


class DestroyedKeys:
    """The list of keys that are never opened under again, restored backups included."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: frozenset[bytes] = frozenset()
        self._known_state: tuple[int, int] | None = None
        self._asked_at = 0.0

    def __contains__(self, key_id: bytes) -> bool:
        """Whether a key is on the list, as it was a moment ago: what is destroyed is also erased in the store."""
        now = time.monotonic()
        if now - self._asked_at > ASK_SECONDS:
            self._asked_at = now
            return key_id in self.ids()
        return key_id in self._known

    def ids(self) -> frozenset[bytes]:
        """Read the list again if another process has added to it."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return frozenset()
        state = (found.st_mtime_ns, found.st_size)
        if state != self._known_state:
            self._known = frozenset(bytes.fromhex(line) for line in self._path.read_text().split())
            self._known_state = state
        return self._known

    def add(self, key_ids: Iterable[bytes]) -> None:
        """Append ids; on the disk before this returns."""
        with self._locked() as descriptor:
            missing = sorted(set(key_ids) - self.ids())
            os.write(descriptor, b"".join(key_id.hex().encode() + b"\n" for key_id in missing))
            os.fsync(descriptor)
        sync_folder(self._path.parent)
        self._asked_at = 0.0

    @contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _read(line: str) -> MasterKey:
    key_id, _, secret = line.strip().partition(" ")
    try:
        key = MasterKey(bytes.fromhex(key_id), base64.b64decode(secret.strip(), validate=True))
    except (ValueError, binascii.Error):
        raise MasterKeyMissing("A master key is not written as `id base64`.") from None
    if len(key.id) != KEY_ID_BYTES or len(key.secret) != KEY_BYTES:
        raise MasterKeyMissing("A master key is not 32 bytes with an id of 16.")
    return key
