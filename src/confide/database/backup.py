"""Back up a database to one file: all rows, still encrypted, then their number, a checksum and a MAC."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from confide.crypto.model import WrappedKey
from confide.database.database import Database
from confide.database.dump import list_backed_up_tables
from confide.database.model import TableRow
from confide.database.schema import get_schema_number
from confide.database.signed_rows import RowSigner

# Format 1 had no MAC. Earlier releases wrote it, and this release if a database has no key of rows yet.
UNSIGNED_FORMAT, FORMAT = 1, 2
CHANGED = "The backup was changed after it was written, or its MAC belongs to another key. Use an unchanged copy."


class ArchiveHeader(NamedTuple):
    """The first line of a backup. The key computed the MAC of the file; None if it has none."""

    schema: int
    key: WrappedKey | None


class ArchiveBroken(Exception):
    """The file is not a complete Confide backup."""


async def write(
    database: Database, path: Path, signer: RowSigner, *, key: WrappedKey | None, progress: Callable[[int], None]
) -> int:
    """Write all rows of one snapshot and return their number. The file gets its name only when it is complete.

    `key` is the wrapped key of the signer. The file contains it, so that it can be verified without the database.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=3, mtime=0) as file:
                count = await _write_rows(database, file, signer, key, progress)
            raw.flush()
            os.fsync(descriptor)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return count


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _write_rows(
    database: Database,
    file: gzip.GzipFile,
    signer: RowSigner,
    key: WrappedKey | None,
    progress: Callable[[int], None],
) -> int:
    count, digest, whole = 0, hashlib.sha256(), hashlib.sha256()
    header = _format_header(ArchiveHeader(get_schema_number("sqlite"), key))
    whole.update(header)
    file.write(header)
    async for table, row in database.dump():
        line = _format_line([table, *(_encode(value) for value in row)])
        digest.update(line)
        whole.update(line)
        file.write(line)
        count += 1
        progress(count)
    end = {"rows": count, "sha256": digest.hexdigest()}
    mac = None if key is None else signer.compute_backup_mac(whole.digest())
    file.write(_format_line(end if mac is None else {**end, "mac": mac.hex()}))
    return count


def check(path: Path, signer: RowSigner | None) -> int:
    """Read the whole file and return the number of rows. Raises `ArchiveBroken`. Stores nothing.

    The signer has the key of the header. Without one, only the checksum is verified, not the MAC.
    """
    return sum(1 for _ in read(path, signer, header=read_header(path)))


def read_header(path: Path) -> ArchiveHeader:
    """Read the first line, which is not verified yet. Raises `ArchiveBroken`."""
    with _translate_errors(path), gzip.open(path, "rb") as file:
        return _parse_header(file.readline())


def read(path: Path, signer: RowSigner | None, *, header: ArchiveHeader) -> Iterator[TableRow]:
    """Read the rows. Raises `ArchiveBroken` at the latest after the last row if the file is incomplete or changed.

    The header is the one that was read before.
    """
    with _translate_errors(path), gzip.open(path, "rb") as file:
        yield from _read_rows(iter(file), signer, header)


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, KeyError, TypeError) as error:
        raise ArchiveBroken(f"{path} is not a complete Confide backup.") from error


def _read_rows(lines: Iterator[bytes], signer: RowSigner | None, header: ArchiveHeader) -> Iterator[TableRow]:
    first = next(lines, b"null")
    if _parse_header(first) != header:
        raise ArchiveBroken(CHANGED)
    tables = list_backed_up_tables(header.schema)
    count, digest, whole, end = 0, hashlib.sha256(), hashlib.sha256(first), None
    for line in lines:
        value = json.loads(line)
        if isinstance(value, dict):
            end = value
            break
        table, *row = value
        if len(row) != len(tables[table]):
            raise ValueError("wrong number of columns")
        digest.update(line)
        whole.update(line)
        count += 1
        yield TableRow(table, tuple(_decode(value) for value in row))
    if end is None or next(lines, None) is not None:
        raise ValueError("no end, or lines after it")
    mac = bytes.fromhex(end.pop("mac", ""))
    if end != {"rows": count, "sha256": digest.hexdigest()}:
        raise ValueError("wrong row count or checksum")
    if header.key is None or signer is None:
        return
    if not hmac.compare_digest(mac, signer.compute_backup_mac(whole.digest()) or b""):
        raise ArchiveBroken(CHANGED)


def _format_header(header: ArchiveHeader) -> bytes:
    start = {"confide": "backup", "format": UNSIGNED_FORMAT, "schema": header.schema}
    if header.key is None:
        return _format_line(start)
    key = {
        name: base64.b64encode(value or b"").decode()
        for name, value in (
            ("id", header.key.id),
            ("master_key_id", header.key.master_key_id),
            ("wrapped", header.key.wrapped),
        )
    }
    return _format_line({**start, "format": FORMAT, "purpose": header.key.purpose, **key})


def _parse_header(line: bytes) -> ArchiveHeader:
    header = json.loads(line or b"null")
    is_backup = isinstance(header, dict) and header.get("confide") == "backup"
    if not is_backup or header.get("format") not in (UNSIGNED_FORMAT, FORMAT):
        raise ValueError("not a backup")
    number, newest = header["schema"], get_schema_number("sqlite")
    if not isinstance(number, int) or not 1 <= number <= newest:
        raise ArchiveBroken(
            f"The backup has schema {number}; this Confide restores schemas up to {newest}. Use a newer Confide."
        )
    if header["format"] == UNSIGNED_FORMAT:
        return ArchiveHeader(number, None)
    id_, master_key_id, wrapped = (
        base64.b64decode(header[name], validate=True) for name in ("id", "master_key_id", "wrapped")
    )
    return ArchiveHeader(number, WrappedKey(id_, header["purpose"], "", master_key_id, wrapped))


def _format_line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _encode(value: Any) -> Any:
    return {"b": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _decode(value: Any) -> Any:
    return base64.b64decode(value["b"]) if isinstance(value, dict) else value
