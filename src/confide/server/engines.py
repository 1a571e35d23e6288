"""The store, on SQLite or on PostgreSQL, chosen by its URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from confide.server.sqlite_store import SqliteStore
from confide.server.stores import Store
from confide.telemetry.operations import SILENT, IoLog


def open_store(
    url: str,
    *,
    is_unsafe: bool = False,
    accepts_unsafe: bool = False,
    pool_size: int = 8,
    io: IoLog = SILENT,
) -> Store:
    """Make the store that a URL names, not yet connected.

    `sqlite:///path` or `postgresql://user:password@host/name`. With `is_unsafe` SQLite runs without waiting for
    the disk; with either flag a PostgreSQL that may lose acknowledged saves is accepted.
    """
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        return SqliteStore(Path(url.removeprefix("sqlite:///")), is_unsafe=is_unsafe, io=io)
    if scheme in ("postgresql", "postgres"):
        from confide.server.postgresql_store import PostgresStore  # noqa: PLC0415 - an extra, imported when asked for

        return PostgresStore(url, accepts_unsafe=is_unsafe or accepts_unsafe, pool_size=pool_size, io=io)
    raise ValueError("A database URL begins with sqlite:/// or postgresql://.")
