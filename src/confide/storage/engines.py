"""The store, on SQLite or on PostgreSQL, chosen by its URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from confide.ports import Store
from confide.storage.sqlite_store import SqliteStore


def open_store(url: str, *, is_unsafe_allowed: bool = False, pool_size: int = 8) -> Store:
    """Make the store that a URL names, not yet connected.

    `sqlite:///path` or `postgresql://user:password@host/name`. With `is_unsafe_allowed` SQLite runs without
    waiting for the disk, and a PostgreSQL that may lose acknowledged saves is accepted.
    """
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        return SqliteStore(Path(url.removeprefix("sqlite:///")), is_unsafe=is_unsafe_allowed)
    if scheme in ("postgresql", "postgres"):
        from confide.storage.postgres_store import PostgresStore  # noqa: PLC0415 - an extra, imported when asked for

        return PostgresStore(url, is_unsafe_allowed=is_unsafe_allowed, pool_size=pool_size)
    raise ValueError("A database URL begins with sqlite:/// or postgresql://.")
