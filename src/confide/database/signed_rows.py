"""Authenticate rows: each row of a signed table has a counter and a MAC under a key outside the database."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from confide.database.rows import list_columns

R = TypeVar("R")

# Each signed table with its primary key.
SIGNED_TABLES: dict[str, tuple[str, ...]] = {
    "users": ("id",),
    "tokens": ("id",),
    "types": ("name", "version"),
    "keys": ("id",),
    "store": ("one",),
}
# An attacker can alter any number of rows. This many are remembered.
MAX_ALTERED = 1_000

_log = logging.getLogger("confide")


class RowName(NamedTuple):
    """A row of a signed table, by its primary key."""

    table: str
    key: str

    def __str__(self) -> str:
        return f"{self.table} {self.key}"


class RowSigner:
    """Signs and verifies rows.

    A row is verified when it is loaded, and caches keep what was verified. Verification begins when the rows of the
    store have been signed. Before, and without a key, each row is believed.
    """

    def __init__(self) -> None:
        self.altered = AlteredRows()
        self.is_enforced = False
        self._secret: bytes | None = None

    def use_key(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, table: str, row: R, **changes: Any) -> R:
        """Return a changed or new row, a NamedTuple of all columns, with its next counter and its MAC."""
        old: Any = row
        new = old._replace(**changes, counter=(old.counter or 0) + 1)
        signed: R = new._replace(mac=self.compute_mac(table, new._asdict()))
        return signed

    def is_valid(self, table: str, row: Mapping[str, Any]) -> bool:
        mac, expected = row["mac"], self.compute_mac(table, row)
        return mac is not None and expected is not None and hmac.compare_digest(bytes(mac), expected)

    def is_believed(self, table: str, row: Any) -> bool:
        """Return whether a row, a NamedTuple of all columns, has a valid MAC. Report it otherwise."""
        if not self.is_enforced:
            return True
        values = row._asdict()
        is_valid = self.is_valid(table, values)
        self.altered.update(name_row(table, values), is_valid=is_valid)
        return is_valid

    def compute_backup_mac(self, digest: bytes) -> bytes | None:
        """Return the MAC of a backup, given its SHA-256 digest. No row has such an encoding."""
        return None if self._secret is None else hmac.digest(self._secret, b"confide backup 2\n" + digest, "sha256")

    def compute_mac(self, table: str, row: Mapping[str, Any]) -> bytes | None:
        return None if self._secret is None else hmac.digest(self._secret, encode_row(table, row), "sha256")


class AlteredRows:
    """Rows whose MAC was invalid when they were last loaded. Each is logged once, and recorded in the audit log."""

    def __init__(self) -> None:
        self._rows: set[RowName] = set()
        # Those that the audit log does not have yet.
        self.unrecorded: list[RowName] = []
        self._wake: Callable[[], object] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def update(self, name: RowName, *, is_valid: bool) -> None:
        """Add or remove a row. Threads may call this."""
        if is_valid:
            if self._rows:
                self._rows.discard(name)
            return
        if name in self._rows or len(self._rows) >= MAX_ALTERED:
            return
        self._rows.add(name)
        _log.error("row_altered table=%s key=%s", *name)
        self.unrecorded.append(name)
        if self._wake is not None:
            self._wake()

    async def run(self, record: Callable[[RowName], Awaitable[None]]) -> None:
        """Record altered rows until cancelled."""
        loop, has_new = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(has_new.set)
        while True:
            while self.unrecorded:
                await record(self.unrecorded[0])
                del self.unrecorded[0]
            await has_new.wait()
            has_new.clear()


def name_row(table: str, row: Mapping[str, Any]) -> RowName:
    parts = (row[column] for column in SIGNED_TABLES[table])
    return RowName(table, " ".join(part.hex() if isinstance(part, bytes) else str(part) for part in parts))


def encode_row(table: str, row: Mapping[str, Any]) -> bytes:
    """Encode the table, and the name and value of each column that is not NULL, each after its length (4 bytes).

    So a column that a later migration adds changes the MAC of a row only when it gets a value.
    """
    parts = [table.encode()]
    for column, value in sorted(row.items()):
        if column != "mac" and value is not None:
            parts += (column.encode(), _encode_value(value))
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def update_row(table: str, row: Any) -> str:
    """Build what follows UPDATE in the statement that replaces a row, with all columns as arguments in order."""
    columns = ", ".join(f"{column} = ${number}" for number, column in enumerate(row._fields, 1))
    at = " AND ".join(f"{column} = ${row._fields.index(column) + 1}" for column in SIGNED_TABLES[table])
    return f"{table} SET {columns} WHERE {at}"


def select_rows(table: str, row: Any) -> str:
    """Build what follows SELECT in the statement that reads the rows of a table."""
    return f"{list_columns(row)} FROM {table}"


def _encode_value(value: int | str | bytes) -> bytes:
    if isinstance(value, str):
        return b"s" + value.encode(errors="surrogatepass")
    return b"i%d" % value if isinstance(value, int) else b"b" + bytes(value)
