"""Each error that the PostgreSQL driver can raise has a translation."""

from __future__ import annotations

import asyncpg
import pytest

from confide.database.engine import UniqueTaken
from confide.database.postgresql.errors import (
    is_bug,
    is_connection_lost,
    is_full,
    translate_connect_failure,
    translate_error,
)
from confide.errors import DatabaseFull, DatabaseReadOnly, DatabaseUnavailable, SessionsShared
from confide.postgresql_client.connector import ConnectFailed

# PostgreSQL, appendix A: every class of SQLSTATE that is an error, and whether Confide causes it.
UNAVAILABLE = "03 08 09 0B 0F 0Z 10 25 26 27 28 2D 3D 3F 40 53 54 55 57 58 72 F0 HV P0 XX ZZ"
BUGS = "0A 0L 0P 20 21 22 23 24 2B 2F 34 38 39 3B 42 44"


def build_error(state: str) -> asyncpg.PostgresError:
    return asyncpg.PostgresError.new({"S": "ERROR", "C": state, "M": "a message"})


@pytest.mark.parametrize("state_class", UNAVAILABLE.split())
def test_a_state_of_the_server_is_unavailability(state_class: str) -> None:
    translated = translate_error(build_error(f"{state_class}000"))
    assert isinstance(translated, DatabaseUnavailable)
    assert "a message" in str(translated) or isinstance(translated, SessionsShared)


@pytest.mark.parametrize("state_class", BUGS.split())
def test_a_wrong_statement_is_a_bug(state_class: str) -> None:
    error = build_error(f"{state_class}000")
    assert translate_error(error) is error


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("23505", UniqueTaken),
        ("22P05", DatabaseUnavailable),
        ("25006", DatabaseReadOnly),
        ("26000", SessionsShared),
        ("42P05", SessionsShared),
        ("42501", DatabaseUnavailable),
        ("53100", DatabaseFull),
        ("55P03", DatabaseUnavailable),
        ("57P01", DatabaseUnavailable),
    ],
)
def test_some_states_have_a_translation_of_their_own(state: str, expected: type[Exception]) -> None:
    assert type(translate_error(build_error(state))) is expected


def test_every_class_that_the_driver_knows_is_in_one_of_the_lists() -> None:
    known = {
        error.sqlstate[:2]
        for error in vars(asyncpg.exceptions).values()
        if isinstance(error, type) and issubclass(error, asyncpg.PostgresError) and error.sqlstate
    }
    assert known - {"00", "01", "02"} <= {*UNAVAILABLE.split(), *BUGS.split()}
    assert not {*UNAVAILABLE.split()} & {*BUGS.split()}


@pytest.mark.parametrize(
    "error",
    [
        OSError("reset"),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("another operation is in progress"),
        asyncpg.exceptions.TargetServerAttributeNotMatched("none of the hosts match"),
    ],
)
def test_an_error_of_the_client_is_a_lost_connection(error: Exception) -> None:
    assert is_connection_lost(error)
    assert str(translate_error(error))


@pytest.mark.parametrize("standby", [DatabaseReadOnly(), asyncpg.exceptions.TargetServerAttributeNotMatched("none")])
def test_a_standby_does_not_hide_that_the_primary_accepts_no_more_connections(standby: Exception) -> None:
    failed = ConnectFailed([("primary", build_error("53300")), ("standby", standby)])
    translated = translate_connect_failure(failed)
    assert type(translated) is DatabaseUnavailable
    translated.__cause__ = failed
    assert is_full(translated)
    without = ConnectFailed([("primary", OSError("reset")), ("standby", standby)])
    assert type(translate_connect_failure(without)) is DatabaseReadOnly


def test_an_argument_that_cannot_be_encoded_is_a_bug() -> None:
    assert is_bug(asyncpg.DataError("invalid input for query argument $1"))
