"""Translate the errors of SQLite. A full disk is an error of the operating system behind them."""

from __future__ import annotations

import errno
import os

import apsw

from confide.database.engine import UniqueTaken
from confide.errors import DatabaseFull, DatabaseReadOnly, DatabaseUnavailable, describe_error

_UNIQUE = frozenset({apsw.SQLITE_CONSTRAINT_UNIQUE, apsw.SQLITE_CONSTRAINT_PRIMARYKEY})
# SQLite itself recognizes only the first as a full disk. The others are a quota, and a limit of the size of a file.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def translate_error(error: Exception, connection: apsw.Connection) -> Exception:
    """Return the error that the stores expect, or the same error if it is a bug or not of SQLite."""
    if isinstance(error, apsw.ConstraintError) and getattr(error, "extendedresult", 0) in _UNIQUE:
        return UniqueTaken(describe_error(error))
    if isinstance(error, apsw.SQLError | apsw.BindingsError | apsw.ConstraintError) or not isinstance(
        error, apsw.Error
    ):
        return error
    return translate_failure(error, connection.system_errno)


def translate_failure(error: apsw.Error | OSError, system_error: int) -> DatabaseUnavailable:
    """Return the error for a failure of the file or its file system. `system_error` is an `errno`."""
    reason = describe_error(error)
    if isinstance(error, apsw.IOError | apsw.CantOpenError | OSError) and system_error:
        reason = reason if isinstance(error, OSError) else f"{reason}: {os.strerror(system_error)}"
        if system_error in _FULL:
            return DatabaseFull(reason)
        if system_error == errno.EROFS:
            return DatabaseReadOnly(reason)
    if isinstance(error, apsw.FullError):
        return DatabaseFull(reason)
    return DatabaseReadOnly(reason) if isinstance(error, apsw.ReadOnlyError) else DatabaseUnavailable(reason)
