"""The audit hash chain. The link of an entry is a hash of the previous link and the entry."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# The link before the first entry.
FIRST_LINK = bytes(32)
_PREFIX = b"confide audit link 1\n"
_LINE = re.compile(
    rb'\{"number":([0-9]{1,19}),"link":"([0-9a-f]{64})","mac":"((?:[0-9a-f]{64})?)","entry":(\[.*\]|null)\}'
)


def compute_link(previous: bytes, number: int, entry: bytes, mac: bytes) -> bytes:
    """Hash the previous link, the number, and the entry with its MAC, each with its length (SHA-256, FIPS 180-4)."""
    head = _PREFIX + previous + number.to_bytes(8, "big") + len(entry).to_bytes(4, "big")
    return hashlib.sha256(head + entry + mac).digest()


class ChainedEntry(NamedTuple):
    """One entry of the chain. `entry` is None if its row is missing."""

    number: int
    link: bytes
    entry: bytes | None
    mac: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed state of the chain: the number of entries and the last link."""

    number: int
    link: bytes
    at: int
    public_key: bytes
    signature: bytes = field(repr=False)

    def encode_signed_part(self) -> bytes:
        return encode_signed_part(self.number, self.link, self.at)


def encode_signed_part(number: int, link: bytes, at: int) -> bytes:
    """Encode the part of a checkpoint that its signature covers. `at` is in microseconds since 1970."""
    return b"confide checkpoint 1\n%d\n%b\n%d\n" % (number, link.hex().encode(), at)


class ChainBreak(NamedTuple):
    """The number of the first invalid entry and the reason."""

    number: int
    reason: str


class ChainCheck:
    """Verifies a chain from a trusted link on. `bad` is the first invalid entry.

    Links and checkpoints prove order and completeness. An attacker can recompute the links after altering an entry.
    `mac` needs the audit key of the database and detects that at the altered entry.
    """

    def __init__(
        self,
        checkpoints: Mapping[int, Checkpoint],
        *,
        number: int = 0,
        link: bytes = FIRST_LINK,
        mac: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.number = number
        self.link = link
        self.bad: ChainBreak | None = None
        self._checkpoints = checkpoints
        self._mac = mac

    def verify_next(self, entries: Iterable[ChainedEntry | None]) -> bool:
        """Verify the next entries; None is an unreadable line. Return False at the first invalid entry."""
        number, previous, mac = self.number, self.link, self._mac
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
            elif compute_link(previous, number, entry.entry, entry.mac) != entry.link:
                reason = "the entry or its link was altered"
            elif number in self._checkpoints and self._checkpoints[number].link != entry.link:
                reason = "the chain was recomputed: its link differs from the signed one"
            if reason is not None:
                self.bad = ChainBreak(number, reason)
                return False
            previous = entry.link
            self.number, self.link = number, previous
        return True

    def finish(self) -> ChainBreak | None:
        """Return the first invalid entry. Entries that a checkpoint covers must not be missing at the end."""
        if self.bad is None and (last := max(self._checkpoints, default=0)) > self.number:
            self.bad = ChainBreak(self.number + 1, f"the end is missing: {last:,} entries were signed")
        return self.bad


def format_line(entry: ChainedEntry) -> bytes:
    """Format one line of an export. The entry keeps its bytes, because the link covers them."""
    return b'{"number":%d,"link":"%b","mac":"%b","entry":%b}' % (
        entry.number,
        entry.link.hex().encode(),
        entry.mac.hex().encode(),
        entry.entry or b"null",
    )


def parse_line(line: bytes) -> ChainedEntry | None:
    """Parse a line of an export. Return None if it is invalid."""
    parts = _LINE.fullmatch(line)
    if parts is None:
        return None
    number, link, mac, entry = parts.groups()
    return ChainedEntry(
        int(number), bytes.fromhex(link.decode()), None if entry == b"null" else entry, bytes.fromhex(mac.decode())
    )


def build_checkpoint_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint.number,
        "link": checkpoint.link.hex(),
        "at": checkpoint.at,
        "public_key": checkpoint.public_key.hex(),
        "signature": checkpoint.signature.hex(),
    }


def format_checkpoint(checkpoint: Checkpoint) -> bytes:
    return json.dumps(build_checkpoint_json(checkpoint), separators=(",", ":")).encode()


def parse_checkpoint(line: bytes) -> Checkpoint | None:
    """Parse a line that `format_checkpoint` wrote. Return None if it is invalid."""
    try:
        fields = json.loads(line)
        link, public_key, signature = (bytes.fromhex(fields[name]) for name in ("link", "public_key", "signature"))
        return Checkpoint(int(fields["checkpoint"]), link, int(fields["at"]), public_key, signature)
    except (ValueError, KeyError, TypeError):
        return None
