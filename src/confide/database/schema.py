"""Apply numbered SQL migrations in order, each once, under a lock."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import apsw

from confide.caching.stamps import EVERYTHING, SlotChange
from confide.database.engine import Lock, Script, Transaction, statement
from confide.database.errors import NewerSchema

_FILE = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql")
_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        number     BIGINT NOT NULL PRIMARY KEY,
        name       TEXT   NOT NULL,
        checksum   TEXT   NOT NULL,
        applied_at BIGINT NOT NULL
    )
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration. Its checksum detects later changes of its file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class ChangedMigration(Exception):
    """A migration file differs from the one that was applied."""


def list_migrations(engine: str) -> list[Migration]:
    """List the migrations of an engine that this Confide contains, in order."""
    folder = files("confide.database").joinpath("migrations", engine)
    names = [(_FILE.fullmatch(file.name), file) for file in folder.iterdir()]
    migrations = [Migration(int(parts[1]), parts[2], file.read_text()) for parts, file in names if parts]
    return sorted(migrations, key=lambda migration: migration.number)


def get_schema_number(engine: str) -> int:
    """Return the number of the newest migration."""
    return list_migrations(engine)[-1].number


@cache
def list_tables(schema_number: int | None = None) -> dict[str, tuple[str, ...]]:
    """Return the columns of each table that the migrations create, in their order. It is the same on both engines.

    With a number, return those of an older schema: the migrations up to that one.
    """
    schema = apsw.Connection(":memory:")
    for migration in list_migrations("sqlite")[:schema_number]:
        schema.execute(migration.sql)
    names = schema.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY rowid"
    )
    return {
        str(name): tuple(str(row[0]) for row in schema.execute("SELECT name FROM pragma_table_info(?)", (name,)))
        for (name,) in names.fetchall()
    }


def migrate(migrations: list[Migration], *, now: int) -> Transaction[list[str]]:
    """Apply missing migrations and return their names.

    Raises `NewerSchema` or `ChangedMigration` before any change.
    """
    yield Lock("migrations")
    yield Script(_TABLE)
    rows = yield statement("SELECT number, checksum FROM schema_migrations ORDER BY number")
    applied: dict[int, str] = dict(rows)  # type: ignore[arg-type]
    newest = max(applied, default=0)
    if newest > migrations[-1].number:
        raise NewerSchema(
            f"The database has schema {newest}, but this Confide supports {migrations[-1].number}. Use a newer Confide."
        )
    names = []
    for migration in migrations:
        if migration.number in applied:
            if applied[migration.number] != migration.checksum:
                raise ChangedMigration(f"Migration {migration.number:04} differs from the one that was applied.")
            continue
        yield SlotChange(EVERYTHING)
        yield Script(migration.sql)
        yield statement(
            "INSERT INTO schema_migrations (number, name, checksum, applied_at) VALUES ($1, $2, $3, $4)",
            migration.number,
            migration.name,
            migration.checksum,
            now,
        )
        names.append(f"{migration.number:04}_{migration.name}")
    return names


def read_number() -> Transaction[int]:
    """Return the number of the newest applied migration. 0 for an empty database."""
    yield Script(_TABLE)
    ((number,),) = yield statement("SELECT coalesce(max(number), 0) FROM schema_migrations")
    return int(number)
