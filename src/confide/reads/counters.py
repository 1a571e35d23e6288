"""What was read before and is wanted again: what each read keeps hold of, and how reads are counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from confide.names import Key
from confide.reads.request import ReadRequest

# So many reads are added up when the next one comes: what was wanted is kept until then.
MAX_UNCOUNTED = 512


@dataclass(slots=True)
class ReadCounts:
    """What was answered at once from memory."""

    hits: int = 0
    not_modified: int = 0
    sent_bytes: int = 0
    # By token and key, whatever answered.
    reads: dict[tuple[int, Key], int] = field(default_factory=dict)


class ReadCounter:
    """Reads answered at once, added up now and then: plain integers on what was wanted until then."""

    def __init__(self) -> None:
        self._counts = ReadCounts()
        self._read: list[ReadRequest] = []

    def note(self, wanted: ReadRequest) -> None:
        """The first read since what was wanted was last added up."""
        self._read.append(wanted)
        if len(self._read) > MAX_UNCOUNTED:
            self.add_up()
            self._read.append(wanted)

    def note_one(self, token_id: int, key: Key) -> None:
        """A read that was not answered at once."""
        who = (token_id, key)
        self._counts.reads[who] = self._counts.reads.get(who, 0) + 1

    def add_up(self) -> None:
        counts = self._counts
        for wanted in self._read:
            who = (wanted.token_id, wanted.key)
            counts.reads[who] = counts.reads.get(who, 0) + wanted.reads
            counts.hits += wanted.reads
            counts.not_modified += wanted.not_modified
            counts.sent_bytes += (wanted.reads - wanted.not_modified) * wanted.length
            wanted.reads = wanted.not_modified = 0
        self._read.clear()

    def take(self) -> ReadCounts:
        """Take over what was counted since this was last done."""
        self.add_up()
        taken, self._counts = self._counts, ReadCounts()
        return taken
