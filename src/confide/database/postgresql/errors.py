"""Translate every error of the PostgreSQL driver, by the class of its SQLSTATE (PostgreSQL, appendix A)."""

from __future__ import annotations

import asyncpg

from confide.database.engine import UniqueTaken
from confide.errors import DatabaseFull, DatabaseReadOnly, DatabaseUnavailable, SessionsShared, describe_error
from confide.postgresql_client.connector import ConnectFailed

# Everything that the driver raises. Not all of its errors have a common base.
DRIVER_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
# The classes that a statement of Confide causes itself: a bug. Every other class, known or not, describes the state of
# the server, its configuration or the path to it.
_BUG_CLASSES = frozenset(
    {"0A", "0L", "0P", "20", "21", "22", "23", "24", "2B", "2F", "34", "38", "39", "3B", "42", "44"}
)
_UNIQUE_VIOLATION = "23505"
# States of these classes that the configuration of the server causes: rights, and the encoding of the database.
_INSUFFICIENT_PRIVILEGE = "42501"
_CONFIGURATION_STATES = frozenset({_INSUFFICIENT_PRIVILEGE, "22P05"})
READ_ONLY_TRANSACTION = "25006"
_GRANT_HINT = "make it the owner of the database, or grant it all rights on its schema."
# The driver prepares a statement once in each session: invalid_sql_statement_name, duplicate_prepared_statement. Both
# mean that the session is not the one where it was prepared.
_SHARED_SESSION = ("26000", "42P05")


def is_bug(error: Exception) -> bool:
    """Return whether Confide caused an error: a wrong statement, or an argument that the driver cannot encode."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in _BUG_CLASSES and state not in _CONFIGURATION_STATES
    return isinstance(error, ValueError) or not isinstance(error, DRIVER_ERRORS)


def is_connection_lost(error: Exception) -> bool:
    """Return whether the connection is unusable, and probably others of the pool too."""
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, asyncpg.PostgresConnectionError)
    return not is_bug(error)


def is_read_only(error: Exception) -> bool:
    """Return whether the session cannot write: the server is a standby, or was made read-only."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate == READ_ONLY_TRANSACTION


def translate_error(error: Exception) -> Exception:
    """Return the error that the stores expect, or the same error if it is a bug."""
    state = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    if state == _UNIQUE_VIOLATION:
        return UniqueTaken(describe_error(error))
    if state == READ_ONLY_TRANSACTION:
        return DatabaseReadOnly(describe_error(error))
    if state in _SHARED_SESSION:
        return SessionsShared()
    if state == _INSUFFICIENT_PRIVILEGE:
        return DatabaseUnavailable(f"The PostgreSQL role lacks a right, {describe_error(error)}: {_GRANT_HINT}")
    if isinstance(error, asyncpg.DiskFullError):
        return DatabaseFull(describe_error(error))
    return error if is_bug(error) else DatabaseUnavailable(describe_error(error))


def is_full(error: DatabaseUnavailable) -> bool:
    """Return whether a server refused the connection because it has too many: its own limit, or that of the role."""
    return isinstance(error.__cause__, ConnectFailed) and _has_full_host(error.__cause__)


def _has_full_host(failed: ConnectFailed) -> bool:
    return any(isinstance(error, asyncpg.TooManyConnectionsError) for error in failed.errors)


def translate_connect_failure(failed: ConnectFailed) -> Exception:
    """Return the error for a connection that no host accepts: that of the host which says most about the cause."""
    for error in failed.errors:
        # A server that must not be used, or a bug. A `ValueError` is a setting that the driver rejects.
        if not isinstance(error, (*DRIVER_ERRORS, DatabaseUnavailable, ValueError)):
            return error
    if any(isinstance(translate_error(error), SessionsShared) for error in failed.errors):
        return SessionsShared()
    # A full host can store, and a standby beside it says nothing about it.
    is_read_only_cause = not _has_full_host(failed)
    for error in failed.errors:
        if is_read_only_cause and isinstance(error, (DatabaseReadOnly, asyncpg.TargetServerAttributeNotMatched)):
            return DatabaseReadOnly(None if len(failed.errors) == 1 else f"{DatabaseReadOnly.sentence} {failed}")
    for error in failed.errors:
        if isinstance(error, DatabaseUnavailable) and len(failed.errors) == 1:
            return error
    return DatabaseUnavailable(f"The database cannot be reached: {failed}")
