"""The audit hash chain: each link covers the previous link and one entry, so that any change is detected."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# The first link covers this instead of a previous link.
BEGINNING = bytes(32)
_PREFIX = b"confide audit link 1\n"
_LINE = re.compile(
    rb'\{"number":([0-9]{1,19}),"link":"([0-9a-f]{64})","mac":"((?:[0-9a-f]{64})?)","entry":(\[.*\]|null)\}'
)


def compute_link(before: bytes, number: int, entry: bytes, mac: bytes) -> bytes:
    """Hash the previous link, the number, and the entry with its MAC, each with its length (SHA-256, FIPS 180-4)."""
    head = _PREFIX + before + number.to_bytes(8, "big") + len(entry).to_bytes(4, "big")
    return hashlib.sha256(head + entry + mac).digest()


class ChainedEntry(NamedTuple):
    """One entry of the chain; `entry` is None if it is missing."""

    number: int
    link: bytes
    entry: bytes | None
    mac: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed state of the chain: its number of entries and its last link."""

    number: int
    link: bytes
    at: int
    public_key: bytes
    signature: bytes = field(repr=False)

    def signed_bytes(self) -> bytes:
        return signed_bytes(self.number, self.link, self.at)


def signed_bytes(number: int, link_: bytes, at: int) -> bytes:
    """Return the bytes that the signature of a checkpoint covers; `at` is in microseconds since 1970."""
    return b"confide checkpoint 1\n%d\n%b\n%d\n" % (number, link_.hex().encode(), at)


class ChainBreak(NamedTuple):
    """The number of the first invalid entry and the reason."""

    number: int
    reason: str


class ChainCheck:
    """Verifies a chain from a link on; `bad` is the first invalid entry.

    Links and checkpoints prove order and completeness. With a MAC function, which needs the store's key, a chain that
    was recomputed after an alteration is also detected at the altered entry.
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
        """Verify more entries; None is an unreadable line. Returns False at the first invalid entry."""
        number, before, mac = self.number, self.link, self._mac
        for entry in entries:
            number += 1
            reason = None
            if entry is None:
                self.bad = ChainBreak(number, "its line is not an entry of an export")
                return False
            if entry.number != number:
                reason = "an entry is missing or out of order"
            elif entry.entry is None:
                reason = "the entry is missing"
            elif mac is not None and mac(entry.entry) != entry.mac:
                reason = "the entry was altered or not written by Confide"
            elif compute_link(before, number, entry.entry, entry.mac) != entry.link:
                reason = "the entry or its link was altered"
            elif number in self._checkpoints and self._checkpoints[number].link != entry.link:
                reason = "the chain was recomputed: its link differs from the signed one"
            if reason is not None:
                self.bad = ChainBreak(number, reason)
                return False
            before = entry.link
            self.number, self.link = number, before
        return True

    def end(self) -> ChainBreak | None:
        """Finish the check: every signed entry must have been there."""
        if self.bad is None and (last := max(self._checkpoints, default=0)) > self.number:
            self.bad = ChainBreak(self.number + 1, f"the end is missing: {last:,} entries were signed")
        return self.bad


def write_line(entry: ChainedEntry) -> bytes:
    """Write one line of an export, which `read_line` reads without parsing the entry."""
    return b'{"number":%d,"link":"%b","mac":"%b","entry":%b}' % (
        entry.number,
        entry.link.hex().encode(),
        entry.mac.hex().encode(),
        entry.entry or b"null",
    )


def read_line(line: bytes) -> ChainedEntry | None:
    """Read a line of an export; returns None if it is invalid."""
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
    """Read a line that `write_checkpoint` wrote; returns None if it is invalid."""
    try:
        fields = json.loads(line)
        link_, public_key, signature = (bytes.fromhex(fields[name]) for name in ("link", "public_key", "signature"))
        return Checkpoint(int(fields["checkpoint"]), link_, int(fields["at"]), public_key, signature)
    except (ValueError, KeyError, TypeError):
        return None
