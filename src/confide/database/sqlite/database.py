"""A database in one SQLite file, for the processes of one machine."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import apsw

from confide.clock import Clock, read_wall_clock
from confide.database.database import NO_SCHEMA, Database
from confide.database.engine import Transaction
from confide.database.errors import UnsafeDurability
from confide.database.identity import EntrySigner
from confide.database.model import DatabaseIdentity
from confide.database.signed_rows import RowSigner
from confide.database.sqlite.engine import SqliteEngine
from confide.epoch import CurrentEpoch
from confide.errors import DatabaseUnavailable

# The extended attribute of the database file that holds its mark.
MARK = "user.confide.home"
# The value of `PRAGMA synchronous` that means FULL.
SYNCHRONOUS_FULL = 2


class Durability(NamedTuple):
    """A description of how durable commits are, and whether an acknowledged save can be lost."""

    description: str
    is_unsafe: bool


class SqliteDatabase(Database):
    """A database in one file."""

    def __init__(
        self,
        engine: SqliteEngine,
        epoch: CurrentEpoch,
        rows: RowSigner,
        *,
        chain_audit_entries: Callable[[], Transaction[None]],
        clock: Clock = read_wall_clock,
    ) -> None:
        super().__init__(engine, epoch, rows, chain_audit_entries=chain_audit_entries, clock=clock)
        self.engine = engine

    async def connect(self) -> None:
        await self.engine.open()

    async def open(self) -> DatabaseIdentity:
        await self.connect()
        durability = self._check_durability()
        try:
            status = await self.engine.transact(self._determine_epoch())
        except apsw.SQLError as error:
            raise DatabaseUnavailable(NO_SCHEMA) from error
        self._epoch.adopt(status.epoch)
        return DatabaseIdentity(
            status.epoch,
            durability.description,
            is_unsafe=durability.is_unsafe,
            is_new_epoch=status.is_new_epoch,
        )

    async def check_storage(self) -> None:
        await self.engine.check_storage()

    async def close(self) -> None:
        await self.engine.close()

    def locate(self) -> str:
        # A file that replaces another has another inode, but file systems reuse inodes. So the file also has a mark in
        # an extended attribute, which plain copies do not keep.
        return f"inode {self.engine.path.stat().st_ino} {_read_mark(self.engine.path)}".rstrip()

    def sign_losses(self, sign: EntrySigner) -> None:
        """Do nothing. A file that is open loses no commits."""

    def _check_durability(self) -> Durability:
        reader = self.engine.reader
        synchronous = reader.pragma("synchronous")
        journal = reader.pragma("journal_mode")
        is_unsafe = synchronous < SYNCHRONOUS_FULL or journal != "wal"
        if is_unsafe and not self.engine.is_unsafe:
            raise UnsafeDurability(f"SQLite runs with synchronous={synchronous}, journal_mode={journal}.")
        return Durability(f"SQLite {journal}, synchronous={'OFF' if is_unsafe else 'FULL'}", is_unsafe)


def _read_mark(path: Path) -> str:
    """Return the file's mark and create it if needed. Empty if the file system has no extended attributes."""
    try:
        return os.getxattr(path, MARK).decode()
    except OSError as error:
        if error.errno != errno.ENODATA:
            return ""
    mark = secrets.token_hex(8)
    try:
        os.setxattr(path, MARK, mark.encode(), os.XATTR_CREATE)
    except FileExistsError:
        return os.getxattr(path, MARK).decode()
    except OSError:
        return ""
    return mark
