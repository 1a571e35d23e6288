"""Check the origins of chained entries: copies, numbers without an entry, and rows of an earlier state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from confide.audit.chain import ChainPart, Removal, find_recorded_loss
from confide.audit.model import RowState
from confide.audit.origin import EntryOrigin, parse_origin
from confide.clock import MICROSECONDS_PER_SECOND
from confide.database.signed_rows import RowName

# A process that gives up a number names it in its next entry. So the last numbers of a process say nothing: an entry
# may still be stored, or the process was killed.
SETTLED_MICROSECONDS = 30 * MICROSECONDS_PER_SECOND
_SIGN_STORE = b',"sign store",'


@dataclass(slots=True)
class _Writer:
    """The numbers of one process: the highest one, and those below it that no entry has or names."""

    highest: int
    last_at: int
    # Each with the time of the entry that has a higher number.
    missing: dict[int, int] = field(default_factory=dict)
    # The check does not report missing numbers up to this one: earlier entries are not part of the check.
    floor: int = 0


class OriginCheck:
    """Follows the entries of a chain in order. With `is_partial`, earlier entries are not part of the check."""

    def __init__(self, *, is_partial: bool) -> None:
        self.findings: list[str] = []
        # The last state of each row that an entry names.
        self.rows: dict[RowName, RowState] = {}
        self._writers: dict[bytes, _Writer] = {}
        self._has_gap = is_partial
        # Writers that had no entry since a gap.
        self._after_gap: set[bytes] = set()

    def add(self, entry: ChainPart) -> None:
        """Check the next entry, whose MAC is valid. A removal stands for entries that the retention removed."""
        if isinstance(entry, Removal):
            self.skip()
            return
        if entry.entry is None:
            return
        if find_recorded_loss(entry) is not None:
            self.skip()
        if _SIGN_STORE in entry.entry:
            self.rows.clear()  # an operator reviewed the rows
        origin = _find_origin(entry.entry)
        if origin is None:
            return
        at = int(entry.entry[1 : entry.entry.index(b",")])
        if not self._add_number(origin, at):
            self.findings.append(f"entry {entry.number} is a copy of another entry")
            return
        for row in origin.rows:
            self.rows[RowName(row.table, row.key)] = row

    def skip(self) -> None:
        """Expect that entries are missing here: commits were lost, or the retention removed entries."""
        self._has_gap = True
        self._after_gap = set(self._writers)
        for writer in self._writers.values():
            writer.missing = {
                number: at for number, at in writer.missing.items() if writer.last_at - at >= SETTLED_MICROSECONDS
            }

    def list_missing(self) -> Iterator[str]:
        """Yield a finding for each number that its process must have stored or named."""
        for writer_id, writer in self._writers.items():
            for number, at in sorted(writer.missing.items()):
                if writer.last_at - at >= SETTLED_MICROSECONDS:
                    yield f"entry {number} of the process {writer_id.hex()} is missing"

    def _add_number(self, origin: EntryOrigin, at: int) -> bool:
        """Record a number and return whether it is new."""
        writer = self._writers.get(origin.writer)
        if writer is None:
            known = origin.number if self._has_gap else 0
            writer = self._writers[origin.writer] = _Writer(known, at, floor=known)
            if self._has_gap:
                self._name(writer, origin)
                return True
        if origin.writer in self._after_gap:
            self._after_gap.discard(origin.writer)
            if origin.number > writer.highest:
                writer.floor = writer.highest = origin.number
                writer.last_at = max(writer.last_at, at)
                self._name(writer, origin)
                return True
        if origin.number > writer.highest:
            writer.missing.update((number, at) for number in range(writer.highest + 1, origin.number))
            writer.highest = origin.number
        elif writer.missing.pop(origin.number, None) is None and origin.number > writer.floor:
            return False
        writer.last_at = max(writer.last_at, at)
        self._name(writer, origin)
        return True

    @staticmethod
    def _name(writer: _Writer, origin: EntryOrigin) -> None:
        for number in origin.given_up:
            writer.missing.pop(number, None)


def _find_origin(entry: bytes) -> EntryOrigin | None:
    """Return the origin in the digest, which is the last member of an encoded entry."""
    if not entry.endswith(b'"]'):
        return None
    return parse_origin(bytes.fromhex(entry[entry.rindex(b'"', 0, -2) + 1 : -2].decode()))
