"""Back up a database to one file: all rows, still encrypted, then their number and a checksum."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from confide.database.database import Database
from confide.database.dump import list_backed_up_tables
from confide.database.model import TableRow
from confide.database.schema import get_schema_number

FORMAT = 1


class ArchiveBroken(Exception):
    """The file is not a complete Confide backup."""


async def write(database: Database, path: Path, *, progress: Callable[[int], None]) -> int:
    """Write all rows of one snapshot and return their number. The file gets its name only when it is complete."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=3, mtime=0) as file:
                count = await _write_rows(database, file, progress)
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


async def _write_rows(database: Database, file: gzip.GzipFile, progress: Callable[[int], None]) -> int:
    count, digest = 0, hashlib.sha256()
    file.write(_format_line({"confide": "backup", "format": FORMAT, "schema": get_schema_number("sqlite")}))
    async for table, row in database.dump():
        line = _format_line([table, *(_encode(value) for value in row)])
        digest.update(line)
        file.write(line)
        count += 1
        progress(count)
    file.write(_format_line({"rows": count, "sha256": digest.hexdigest()}))
    return count


def check(path: Path) -> int:
    """Read the whole file and return the number of rows. Raises `ArchiveBroken`. Stores nothing."""
    return sum(1 for _ in read(path))


def read(path: Path) -> Iterator[TableRow]:
    """Read the rows. Raises `ArchiveBroken` if the file is not complete, at the latest after the last row."""
    try:
        with gzip.open(path, "rb") as file:
            yield from _read_rows(iter(file))
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, KeyError, TypeError) as error:
        raise ArchiveBroken(f"{path} is not a complete Confide backup.") from error


def _read_rows(lines: Iterator[bytes]) -> Iterator[TableRow]:
    header = json.loads(next(lines, b"null"))
    if not isinstance(header, dict) or header.get("confide") != "backup" or header.get("format") != FORMAT:
        raise ValueError("not a backup")
    number, newest = header["schema"], get_schema_number("sqlite")
    if not isinstance(number, int) or not 1 <= number <= newest:
        raise ArchiveBroken(
            f"The backup has schema {number}; this Confide restores schemas up to {newest}. Use a newer Confide."
        )
    tables = list_backed_up_tables(number)
    count, digest, end = 0, hashlib.sha256(), None
    for line in lines:
        value = json.loads(line)
        if isinstance(value, dict):
            end = value
            break
        table, *row = value
        if len(row) != len(tables[table]):
            raise ValueError("wrong number of columns")
        digest.update(line)
        count += 1
        yield TableRow(table, tuple(_decode(value) for value in row))
    if end != {"rows": count, "sha256": digest.hexdigest()}:
        raise ValueError("wrong row count or checksum")


def _format_line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _encode(value: Any) -> Any:
    return {"b": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _decode(value: Any) -> Any:
    return base64.b64decode(value["b"]) if isinstance(value, dict) else value
