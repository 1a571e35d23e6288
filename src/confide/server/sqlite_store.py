"""The store in one file: nothing to install, many processes of one machine."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

import apsw

from confide.audit.store import AuditStore
from confide.changes.sqlite_feed import SqliteChangeFeed
from confide.configs.retention_store import RetentionStore
from confide.configs.sqlite_store import SqliteConfigStore
from confide.crypto.store import DataKeyStore
from confide.database.errors import UnsafeDurability
from confide.database.identity import settle
from confide.database.model import DatabaseIdentity
from confide.database.sqlite.engine import SqliteEngine
from confide.errors import DatabaseUnavailable
from confide.identity.token_store import TokenStore
from confide.identity.user_store import UserStore
from confide.integration_types.store import IntegrationTypeStore
from confide.reads.statistics_store import AccessStatisticsStore
from confide.server.store_parts import NOTHING_THERE, StoreParts
from confide.telemetry.operations import SILENT, IoLog

MARK = "user.confide.home"


class SqliteStore(StoreParts):
    """Everything in one file of the data folder."""

    def __init__(self, path: Path, *, is_unsafe: bool, io: IoLog = SILENT) -> None:
        self._engine: SqliteEngine = SqliteEngine(path, is_unsafe=is_unsafe, io=io)
        self.configs = SqliteConfigStore(self._engine)
        self.accounts = UserStore(self._engine)
        self.tokens = TokenStore(self._engine)
        self.types = IntegrationTypeStore(self._engine)
        self.audit = AuditStore(self._engine)
        self.usage = AccessStatisticsStore(self._engine)
        self.upkeep = RetentionStore(self._engine)
        self.keys = DataKeyStore(self._engine)
        self.news = SqliteChangeFeed(self._engine)

    async def connect(self) -> None:
        await self._engine.open()

    async def open(self) -> DatabaseIdentity:
        await self.connect()
        durability, is_unsafe = self._durability()
        try:
            epoch, has_begun_anew = await self._engine.transact(settle(self._home(), now=self.clock(), has_xid=False))
        except apsw.SQLError as error:
            raise DatabaseUnavailable(NOTHING_THERE) from error
        return DatabaseIdentity(epoch, durability, is_unsafe=is_unsafe, has_begun_anew=has_begun_anew)

    async def close(self) -> None:
        await self._engine.close()

    def _home(self) -> str:
        # A file that was put in another's place is another file to the file system. Inodes are used again,
        # so it also gets a mark that plain copies do not take along.
        return f"inode {self._engine.path.stat().st_ino} {_mark(self._engine.path)}".rstrip()

    def _durability(self) -> tuple[str, bool]:
        reader = self._engine.reader
        synchronous = reader.pragma("synchronous")
        journal = reader.pragma("journal_mode")
        is_unsafe = synchronous < 2 or journal != "wal"  # noqa: PLR2004 - 2 is FULL in SQLite's own numbers
        if is_unsafe and not self._engine.is_unsafe:
            raise UnsafeDurability(f"SQLite runs with synchronous={synchronous}, journal_mode={journal}.")
        return f"SQLite {journal}, synchronous={'FULL' if not is_unsafe else 'OFF'}", is_unsafe


def _mark(path: Path) -> str:
    """The file's own mark, made if it has none; nothing where the file system keeps no attributes."""
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
