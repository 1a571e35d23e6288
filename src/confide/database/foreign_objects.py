"""Find objects in the schema that Confide did not create, such as a trigger that hides or adds rows."""

from __future__ import annotations

from functools import cache

import apsw

from confide.database.engine import Engine
from confide.database.schema import list_migrations, list_tables

MIGRATIONS_TABLE = "schema_migrations"
SQLITE_OBJECTS = "/* store.objects */ SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"
# Triggers, rules, policies and children of the tables of Confide, and relations that stand for one of them.
POSTGRESQL_OBJECTS = """/* store.objects */
    WITH tables AS (
        SELECT c.oid, c.relname, c.relkind FROM pg_class c
        WHERE c.relname = ANY ($1::text[]) AND c.oid = to_regclass(quote_ident(c.relname))
    )
    SELECT 'trigger', tgname::text, relname::text FROM pg_trigger JOIN tables ON tgrelid = tables.oid
    WHERE NOT tgisinternal
    UNION ALL SELECT 'rule', rulename::text, relname::text FROM pg_rewrite JOIN tables ON ev_class = tables.oid
    UNION ALL SELECT 'policy', polname::text, relname::text FROM pg_policy JOIN tables ON polrelid = tables.oid
    UNION ALL SELECT 'child table', child.relname::text, tables.relname::text
    FROM pg_inherits JOIN tables ON inhparent = tables.oid JOIN pg_class child ON child.oid = inhrelid
    UNION ALL SELECT 'relation', relname::text, relname::text FROM tables WHERE relkind NOT IN ('r', 'p')
    UNION ALL SELECT 'disabled constraint trigger', tgname::text, relname::text
    FROM pg_trigger JOIN tables ON tgrelid = tables.oid WHERE tgisinternal AND tgenabled <> 'O'
    ORDER BY 1, 2, 3
"""
POSTGRESQL_INDEXES = """/* store.indexes */
    SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relname = ANY ($1::text[]) AND i.indisvalid AND c.oid = to_regclass(quote_ident(c.relname))
"""


async def find_foreign_objects(engine: Engine) -> list[str]:
    """List foreign objects, and indexes that are missing, as sentences."""
    if engine.name == "sqlite":
        found = {(str(type_), str(name)) for type_, name in await engine.query(SQLITE_OBJECTS)}
        expected = _list_sqlite_objects()
        foreign = [f"{type_} {name} is not part of the schema" for type_, name in sorted(found - expected)]
        return foreign + [f"{type_} {name} of the schema is missing" for type_, name in sorted(expected - found)]
    tables = [*list_tables(), MIGRATIONS_TABLE]
    rows = await engine.search(POSTGRESQL_OBJECTS, tables)
    indexes = {name for type_, name in _list_sqlite_objects() if type_ == "index"}
    present = {str(name) for (name,) in await engine.search(POSTGRESQL_INDEXES, sorted(indexes))}
    foreign = [f"{type_} {name} on {table} is not part of the schema" for type_, name, table in rows]
    return foreign + [f"index {name} of the schema is missing" for name in sorted(indexes - present)]


@cache
def _list_sqlite_objects() -> frozenset[tuple[str, str]]:
    """Return the type and the name of each table and index. The indexes have the same names on PostgreSQL."""
    schema = apsw.Connection(":memory:")
    for migration in list_migrations("sqlite"):
        schema.execute(migration.sql)
    rows = schema.execute(SQLITE_OBJECTS).fetchall()
    return frozenset({("table", MIGRATIONS_TABLE), *((str(type_), str(name)) for type_, name in rows)})
