"""The audit hash chain. The link of an entry is a hash of the previous link and the entry."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confide.audit.model import BEGIN_EPOCH, COMMITS_LOST, parse_signed_number

# The link before the first entry.
FIRST_LINK = bytes(32)
_LOSS_PART = f',"{BEGIN_EPOCH}","{COMMITS_LOST}",'.encode()
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


@dataclass(frozen=True, slots=True)
class Removal:
    """A stretch of the chain that the retention removed, signed. It leads from the link before it to its last link."""

    first: int
    last: int
    previous_link: bytes
    link: bytes
    at: int
    public_key: bytes
    signature: bytes = field(repr=False)

    def encode_signed_part(self) -> bytes:
        """Encode the part that the signature covers. `at` is in microseconds since 1970."""
        links = (self.previous_link.hex().encode(), self.link.hex().encode())
        return b"confide audit removal 1\n%d\n%d\n%b\n%b\n%d\n" % (self.first, self.last, *links, self.at)


# A part of the chain, in order.
ChainPart = ChainedEntry | Removal


class RecordedLoss(NamedTuple):
    """The audit entry of an epoch that began because commits were lost."""

    # The number of the entry in the chain. 0 if it is not chained yet.
    number: int
    at: int
    # The number of the last entry that a checkpoint covers which was not lost.
    signed_number: int

    def is_explaining(self, checkpoint: Checkpoint) -> bool:
        """Return whether the checkpoint covers entries that were lost: it is a later one, signed before the loss."""
        return checkpoint.number > self.signed_number and checkpoint.at < self.at


class LostStretch(NamedTuple):
    """A stretch of entries that were signed, of which some were lost. An admin must confirm that.

    `signed_at` is the time of the last lost checkpoint, `noticed_at` that of the entry about the loss.
    """

    first: int
    last: int
    signed_at: int
    noticed_at: int


class ChainBreak(NamedTuple):
    """The number of the first invalid entry and the reason."""

    number: int
    reason: str


class ChainCheck:
    """Verifies a chain from a trusted link on. `bad` is the first invalid entry.

    Links and checkpoints prove order and completeness. An attacker can recompute the links after altering an entry.
    `mac` needs the audit key of the database and detects that at the altered entry. A checkpoint that contradicts the
    chain is explained by an entry about lost commits. Without `mac`, a matching checkpoint must cover that entry.

    A removal stands for its entries if its signature is valid, which the caller checks, and if it continues the chain.
    `removed` is their number.
    """

    def __init__(
        self,
        checkpoints: Iterable[Checkpoint],
        *,
        losses: Sequence[RecordedLoss] = (),
        number: int = 0,
        link: bytes = FIRST_LINK,
        mac: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.number = number
        self.link = link
        self.bad: ChainBreak | None = None
        self.removed = 0
        # A number has two checkpoints if its entry was lost and another entry got the number.
        self._checkpoints: dict[int, list[Checkpoint]] = {}
        for checkpoint in set(checkpoints):
            self._checkpoints.setdefault(checkpoint.number, []).append(checkpoint)
        self._losses = losses
        self._mac = mac
        self._signed_number = 0
        self._lost: dict[RecordedLoss, list[Checkpoint]] = {}

    def verify_next(self, parts: Iterable[ChainPart | None]) -> bool:
        """Verify the next parts; None is an unreadable line. Return False at the first invalid entry."""
        for part in parts:
            if isinstance(part, Removal):
                reason = self._skip(part)
            elif part is None:
                reason = "its line is not an entry of an export"
            else:
                reason = self._verify(part)
            if reason is not None:
                self.bad = ChainBreak(self.number + 1, reason)
                return False
        return True

    def _verify(self, entry: ChainedEntry) -> str | None:
        """Verify the next entry. Return the reason if it is invalid."""
        number = self.number + 1
        if entry.number != number:
            return "an entry is missing or out of order"
        if entry.entry is None:
            return "the entry is missing"
        if self._mac is not None and self._mac(entry.entry) != entry.mac:
            return "the entry was altered or not written by Confide"
        if compute_link(self.link, number, entry.entry, entry.mac) != entry.link:
            return "the entry or its link was altered"
        if number in self._checkpoints and not self._is_signed(number, entry.link):
            return "the chain was recomputed: its link differs from the signed one"
        self.number, self.link = number, entry.link
        return None

    def _skip(self, removal: Removal) -> str | None:
        """Continue after a removal. Return the reason if it does not continue the chain.

        It can begin with entries that were verified before the retention removed them.
        """
        begin = removal.first - 1
        is_next = begin <= self.number < removal.last
        if not is_next or (begin == self.number and removal.previous_link != self.link):
            return "a removal does not continue the chain"
        self.removed += removal.last - self.number
        self.number, self.link = removal.last, removal.link
        # Its signature covers all that precedes it, as a checkpoint does.
        self._signed_number = removal.last
        return None

    def finish(self) -> ChainBreak | None:
        """Return the first invalid entry. Entries that a checkpoint covers must not be missing at the end."""
        if self.bad is not None:
            return self.bad
        later = [one for number, group in self._checkpoints.items() if number > self.number for one in group]
        if last := max((one.number for one in later if not self._is_explained(one)), default=0):
            self.bad = ChainBreak(self.number + 1, f"the end is missing: {last:,} entries were signed")
        elif self._mac is None and (unsigned := [one for one in self._lost if one.number > self._signed_number]):
            # Without the key, only a signature tells an honest entry about a loss from a forged one.
            first = min(one.number for loss in unsigned for one in self._lost[loss])
            reason = f"it was signed with another link, and entry {unsigned[0].number:,}, which says why, is not signed"
            self.bad = ChainBreak(min(first, self.number + 1), reason)
        return self.bad

    def list_lost(self) -> list[LostStretch]:
        """List the stretches that were found lost so far."""
        return sorted(
            LostStretch(loss.signed_number + 1, max(one.number for one in found), max(one.at for one in found), loss.at)
            for loss, found in self._lost.items()
        )

    def _is_signed(self, number: int, link: bytes) -> bool:
        """Return whether the checkpoints of a number have its link, except those that a loss explains."""
        contradicting = [one for one in self._checkpoints[number] if one.link != link]
        if len(contradicting) < len(self._checkpoints[number]):
            self._signed_number = number
        return not [one for one in contradicting if not self._is_explained(one)]

    def _is_explained(self, checkpoint: Checkpoint) -> bool:
        loss = next((one for one in self._losses if one.is_explaining(checkpoint)), None)
        if loss is not None:
            self._lost.setdefault(loss, []).append(checkpoint)
        return loss is not None


def find_recorded_loss(entry: ChainedEntry) -> RecordedLoss | None:
    """Return the loss that an entry of the chain records. None for any other entry."""
    if entry.entry is None or _LOSS_PART not in entry.entry:
        return None
    try:
        at, action, outcome, *_, subject, _ = json.loads(entry.entry)
        signed_number = parse_signed_number(subject)
    except (ValueError, TypeError):
        return None  # an altered entry
    if (action, outcome) != (BEGIN_EPOCH, COMMITS_LOST) or signed_number is None or not isinstance(at, int):
        return None
    return RecordedLoss(entry.number, at, signed_number)


def format_line(entry: ChainedEntry) -> bytes:
    """Format one line of an export. The entry keeps its bytes, because the link covers them."""
    return b'{"number":%d,"link":"%b","mac":"%b","entry":%b}' % (
        entry.number,
        entry.link.hex().encode(),
        entry.mac.hex().encode(),
        entry.entry or b"null",
    )


def format_removal(removal: Removal) -> bytes:
    """Format a removal as a line of an export."""
    parts = {
        "first": removal.first,
        "previous_link": removal.previous_link.hex(),
        "link": removal.link.hex(),
        "at": removal.at,
        "public_key": removal.public_key.hex(),
        "signature": removal.signature.hex(),
    }
    # The number comes first, so that a client finds the cursor of the next page as in the line of an entry.
    return json.dumps({"number": removal.last, "removed": parts}, separators=(",", ":")).encode()


def parse_part(line: bytes) -> ChainPart | None:
    """Parse a line of an export: an entry or a removal. Return None if it is invalid."""
    return parse_line(line) if b'"removed":{' not in line[:64] else _parse_removal(line)


def _parse_removal(line: bytes) -> Removal | None:
    try:
        document = json.loads(line)
        parts = document["removed"]
        links = (bytes.fromhex(parts["previous_link"]), bytes.fromhex(parts["link"]))
        signature = (bytes.fromhex(parts["public_key"]), bytes.fromhex(parts["signature"]))
        return Removal(int(parts["first"]), int(document["number"]), *links, int(parts["at"]), *signature)
    except (ValueError, KeyError, TypeError):
        return None


def parse_line(line: bytes) -> ChainedEntry | None:
    """Parse the line of an entry. Return None if it is invalid."""
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
