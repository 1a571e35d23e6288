"""Build SQL fragments from the NamedTuple that defines the rows of a table."""

from __future__ import annotations

import types
from typing import Any, get_args, get_type_hints

_SQL_TYPES = {int: "bigint", str: "text", bytes: "bytea"}


def list_columns(row: Any) -> str:
    """List the columns: `id, login, password`."""
    return ", ".join(row._fields)


def list_placeholders(row: Any, *, start: int = 1) -> str:
    """List a placeholder for each column: `$1, $2, $3`."""
    return ", ".join(f"${number}" for number in range(start, start + len(row._fields)))


def list_array_placeholders(row: Any, *, start: int = 1) -> str:
    """List a placeholder for an array of each column, with its PostgreSQL type: `$1::text[], $2::bigint[]`."""
    hints = get_type_hints(row)
    return ", ".join(
        f"${number}::{_find_sql_type(hints[column])}[]" for number, column in enumerate(row._fields, start)
    )


def insert_into(table: str, row: Any) -> str:
    """Build the statement that inserts one row."""
    return f"INSERT INTO {table} ({list_columns(row)}) VALUES ({list_placeholders(row)})"


def _find_sql_type(hint: Any) -> str:
    inner = [one for one in get_args(hint) if one is not types.NoneType] or [hint]
    return _SQL_TYPES[inner[0]]
