"""What was read before and is wanted again: what each read keeps hold of, and how reads are counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from confide.domain.names import Key
from confide.service.memory import Remembered
from confide.service.principals import Checked

# What is wanted with its names, numbers and the digest that it is known by.
WANTED_BYTES = 650
# So many reads are added up when the next one comes: what was wanted is kept until then.
MOST_COUNTED_APART = 512


class WantedConfig(Remembered):
    """What somebody wants to read, perhaps again and again: it keeps hold of what answered it the last time.

    The answer is good while neither it nor the token is over, until the next second begins, under the lease.
    """

    __slots__ = (
        "answer",
        "checked",
        "floor",
        "key",
        "known",
        "length",
        "not_modified",
        "reads",
        "second",
        "token_hash",
        "token_id",
    )

    def __init__(self, token_hash: bytes, key: Key, *, known: str | None = None, floor: int = 0) -> None:
        super().__init__(WANTED_BYTES)
        self.token_hash = token_hash
        # Known once the token was looked up.
        self.token_id = 0
        self.key = key
        # The tags that the caller has, and the version that it has seen.
        self.known = known
        self.floor = floor
        # Reads since they were last added up, and how many of them brought nothing new.
        self.reads = 0
        self.not_modified = 0
        self.length = 0
        self.answer: Any = None
        self.checked: Checked | None = None
        self.second: object = None


@dataclass(slots=True)
class ReadCounts:
    """What was answered at once from memory."""

    hits: int = 0
    not_modified: int = 0
    sent_bytes: int = 0
    # By token and key, whatever answered.
    reads: dict[tuple[int, Key], int] = field(default_factory=dict)


class Tally:
    """Reads answered at once, added up now and then: plain integers on what was wanted until then."""

    def __init__(self) -> None:
        self._counts = ReadCounts()
        self._read: list[WantedConfig] = []

    def note(self, wanted: WantedConfig) -> None:
        """The first read since what was wanted was last added up."""
        self._read.append(wanted)
        if len(self._read) > MOST_COUNTED_APART:
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
