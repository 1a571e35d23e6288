"""The chain of the audit: each link covers the link before it and one entry, so nothing can be altered unseen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# What the first link covers in the place of one before it.
BEGINNING = bytes(32)
_PREFIX = b"confide audit link 1\n"
_LINE = re.compile(
    rb'\{"number":([0-9]{1,19}),"link":"([0-9a-f]{64})","mac":"((?:[0-9a-f]{64})?)","entry":(\[.*\]|null)\}'
)


def link(before: bytes, number: int, entry: bytes, mac: bytes) -> bytes:
    """SHA-256 over the link before, the number, and the entry with its MAC, each of known length (FIPS 180-4)."""
    head = _PREFIX + before + number.to_bytes(8, "big") + len(entry).to_bytes(4, "big")
    return hashlib.sha256(head + entry + mac).digest()


class ChainedEntry(NamedTuple):
    """One entry in its place of the chain; without an entry where that is gone."""

    number: int
    link: bytes
    entry: bytes | None
    mac: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed state of the chain: so many entries, and the link of the last one."""

    number: int
    link: bytes
    at: int
    public_key: bytes
    signature: bytes = field(repr=False)

    def signed_bytes(self) -> bytes:
        return signed_bytes(self.number, self.link, self.at)


def signed_bytes(number: int, link_: bytes, at: int) -> bytes:
    """What the signature of a checkpoint covers; `at` in microseconds since 1970."""
    return b"confide checkpoint 1\n%d\n%b\n%d\n" % (number, link_.hex().encode(), at)


class ChainBreak(NamedTuple):
    """The first entry that is not as it was, by its number, and what is wrong there."""

    number: int
    why: str


class ChainCheck:
    """Follows a chain from a link on; `bad` is the first entry that is not as it was.

    Order and completeness need only the links and the checkpoints; with a MAC function, which needs the store's
    key, a chain that was made anew after an alteration is found at the altered entry too.
    """

    def __init__(
        self,
        checkpoints: Mapping[int, Checkpoint],
        *,
        number: int = 0,
        before: bytes = BEGINNING,
        mac: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.number = number
        self.link = before
        self.bad: ChainBreak | None = None
        self._checkpoints = checkpoints
        self._mac = mac

    def follow(self, entries: Iterable[ChainedEntry | None]) -> bool:
        """Go on with more entries; None is a line that holds none. False once something is wrong."""
        number, before, mac = self.number, self.link, self._mac
        for found in entries:
            number += 1
            why = None
            if found is None:
                self.bad = ChainBreak(number, "its line is no entry of an export")
                return False
            if found.number != number:
                why = "an entry is missing, or stands in another's place"
            elif found.entry is None:
                why = "the entry is gone"
            elif mac is not None and mac(found.entry) != found.mac:
                why = "the entry was altered or is not ours"
            elif link(before, number, found.entry, found.mac) != found.link:
                why = "the entry or its link was altered"
            elif number in self._checkpoints and self._checkpoints[number].link != found.link:
                why = "the chain was made anew: it is not the one that was signed here"
            if why is not None:
                self.bad = ChainBreak(number, why)
                return False
            before = found.link
            self.number, self.link = number, before
        return True

    def end(self) -> ChainBreak | None:
        """Nothing more comes: what was signed must have been there."""
        if self.bad is None and (last := max(self._checkpoints, default=0)) > self.number:
            self.bad = ChainBreak(self.number + 1, f"the end is missing: {last:,} entries were signed")
        return self.bad


def write_line(found: ChainedEntry) -> bytes:
    """One entry of an export, as it is read back without looking into the entry."""
    return b'{"number":%d,"link":"%b","mac":"%b","entry":%b}' % (
        found.number,
        found.link.hex().encode(),
        found.mac.hex().encode(),
        found.entry or b"null",
    )


def read_line(line: bytes) -> ChainedEntry | None:
    """Read a line of an export; None if it is none."""
    parts = _LINE.fullmatch(line)
    if parts is None:
        return None
    number, link_, mac, entry = parts.groups()
    whole = None if entry == b"null" else entry
    return ChainedEntry(int(number), bytes.fromhex(link_.decode()), whole, bytes.fromhex(mac.decode()))


def checkpoint_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint.number,
        "link": checkpoint.link.hex(),
        "at": checkpoint.at,
        "public_key": checkpoint.public_key.hex(),
        "signature": checkpoint.signature.hex(),
    }


def write_checkpoint(checkpoint: Checkpoint) -> bytes:
    return json.dumps(checkpoint_json(checkpoint), separators=(",", ":")).encode()


def read_checkpoint(line: bytes) -> Checkpoint | None:
    """Read a line that `write_checkpoint` wrote; None if it is none."""
    try:
        found = json.loads(line)
        link_, public_key, signature = (bytes.fromhex(found[name]) for name in ("link", "public_key", "signature"))
        return Checkpoint(int(found["checkpoint"]), link_, int(found["at"]), public_key, signature)
    except (ValueError, KeyError, TypeError):
        return None
