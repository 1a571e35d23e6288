"""Set up each PostgreSQL session, regardless of the configuration of the server, the database and the role."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from confide.database.postgresql.transaction import Connection
from confide.errors import DatabaseUnavailable

# The plan methods, with the default of PostgreSQL.
_PLAN_METHODS = (
    "bitmapscan gathermerge hashagg hashjoin incremental_sort indexonlyscan indexscan material memoize mergejoin"
    " nestloop parallel_append parallel_hash partition_pruning seqscan sort tidscan"
)
# Every setting that a statement of Confide relies on. A server that does not know one ignores it.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        # Compiling a plan takes longer than any statement here.
        "jit": "off",
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",
        "IntervalStyle": "postgres",
        "bytea_output": "hex",
        "standard_conforming_strings": "on",
        "default_transaction_isolation": "read committed",
        "default_transaction_deferrable": "off",
        # The client has time limits. A limit of the server would also end long transactions of the host commands.
        "statement_timeout": "0",
        "lock_timeout": "0",
        "transaction_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "plan_cache_mode": "auto",
        "work_mem": "4MB",
        **{f"enable_{name}": "on" for name in _PLAN_METHODS.split()},
    }
)
# Whether the session cannot store: the server is a standby, or its operator made it read-only.
IS_READ_ONLY = "pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
# Not `SET`, which takes no parameters. Not startup parameters, because PgBouncer rejects those that it does not know.
APPLY = """/* session.set */
    SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS setting (name, value)
    WHERE current_setting(name, true) IS NOT NULL
"""
# As a simple query, which ends within a limit of one millisecond. The statements after it need more.
NO_TIME_LIMIT = "/* session.begin */ SET statement_timeout = 0"
# Where the tables are. Before the first migration, where PostgreSQL would create them.
FIND_SCHEMA = """/* session.find_schema */
    SELECT coalesce(
        (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('schema_migrations')),
        quote_ident(current_schema())
    )
"""


async def set_up_session(connection: Connection, *, schema: str | None) -> str:
    """Apply the settings and return the schema of the tables, quoted. A known `schema` is not searched again.

    Raises `DatabaseUnavailable` if the search path of the role names no schema that the role can use.
    """
    await connection.execute(NO_TIME_LIMIT)
    if schema is None:
        schema = await connection.fetchval(FIND_SCHEMA)
    if schema is None:
        raise DatabaseUnavailable(
            "The search path of the PostgreSQL role names no schema that the role can use."
            " Create that schema, grant USAGE on it or change the path."
        )
    await apply_settings(connection, {**SETTINGS, "search_path": schema})
    return schema


async def apply_settings(connection: Connection, settings: Mapping[str, str]) -> None:
    """Set settings for the rest of the session, in one statement."""
    await connection.execute(APPLY, list(settings), list(settings.values()))
