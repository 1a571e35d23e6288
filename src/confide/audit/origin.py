"""The origin of an audit entry: the process that wrote it, its number there, and the rows that its change left behind.

It follows the digest of the content in the column `digest`, which the MAC of an entry covers. So processes of the
release before, which know no origin, chain and verify the same bytes.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from confide.audit.model import AuditEntry, EntryDraft, RowState, SignedEntry

# The first byte. A digest without an origin has 32 bytes and can begin with any byte.
FORMAT = 2
DIGEST_BYTES = 32
WRITER_BYTES = 8
NUMBER_BYTES = 8
_ROW = re.compile(r"([a-z]+) ([^=]+)=([0-9]+)(?:@([0-9]+))?")


class EntryOrigin(NamedTuple):
    """The writer of an entry, its number, the numbers that the writer gave up before, and the changed rows."""

    writer: bytes
    number: int
    given_up: tuple[int, ...]
    rows: tuple[RowState, ...]

    def encode(self, digest: bytes | None) -> bytes:
        """Encode `format ‖ length of the digest ‖ digest ‖ writer ‖ number ‖ text`."""
        content = digest or b""
        text = ""
        if self.given_up or self.rows:
            text = ";".join([",".join(map(str, self.given_up)), *map(_format_row, self.rows)])
        encoded = (
            bytes((FORMAT, len(content)))
            + content
            + self.writer
            + self.number.to_bytes(NUMBER_BYTES, "big")
            + text.encode()
        )
        return encoded if len(encoded) != DIGEST_BYTES else encoded + b";"


def parse_origin(digest: bytes) -> EntryOrigin | None:
    """Return the origin of an entry, or None if it has none. Raises `ValueError` for an altered one."""
    if len(digest) == DIGEST_BYTES or not digest or digest[0] != FORMAT:
        return None
    at = 2 + digest[1]
    writer, number = digest[at : at + WRITER_BYTES], digest[at + WRITER_BYTES : at + WRITER_BYTES + NUMBER_BYTES]
    given_up, *rows = digest[at + WRITER_BYTES + NUMBER_BYTES :].decode().split(";")
    return EntryOrigin(
        writer,
        int.from_bytes(number, "big"),
        tuple(int(one) for one in given_up.split(",") if one),
        tuple(_parse_row(row) for row in rows if row),
    )


class EntryJournal:
    """Numbers and signs the entries of one process, in the transactions that store them.

    A transaction that fails gives up its number. The next entry names it, so that a number without an entry is found.
    """

    def __init__(self, compute_mac: Callable[[bytes], bytes]) -> None:
        self._compute_mac = compute_mac
        self._writer = secrets.token_bytes(WRITER_BYTES)
        # The writer thread of SQLite numbers entries as well.
        self._lock = threading.Lock()
        self._next = 1
        self._given_up: list[int] = []

    def draft(self, entry: AuditEntry) -> EntryDraft:
        """Return a draft that this journal signs when it is stored."""
        return EntryDraft(entry, self.sign, self.give_up)

    def sign(self, entry: AuditEntry, rows: Sequence[RowState]) -> SignedEntry:
        with self._lock:
            number, self._next = self._next, self._next + 1
            given_up, self._given_up = tuple(self._given_up), []
        origin = EntryOrigin(self._writer, number, given_up, tuple(rows))
        numbered = entry.with_digest(origin.encode(entry.digest))
        return SignedEntry(numbered, self._compute_mac(numbered.encode()), (*given_up, number))

    def give_up(self, signed: SignedEntry) -> None:
        """Name the numbers of an entry that was not stored, or perhaps not, in the next entry."""
        with self._lock:
            self._given_up += signed.numbers


def _format_row(row: RowState) -> str:
    text = f"{row.table} {row.key}={row.counter}"
    return text if row.until is None else f"{text}@{row.until}"


def _parse_row(text: str) -> RowState:
    parts = _ROW.fullmatch(text)
    if parts is None:
        raise ValueError("not a row")
    table, key, counter, until = parts.groups()
    return RowState(table, key, int(counter), None if until is None else int(until))
