"""Check the records of a failover: nothing acknowledged is lost, no read is wrongly unmarked, watchers are exact."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from confide.names import ConfigKey
from support.failover_load import (
    FailoverRecord,
    ReadRecord,
    ReceivedChange,
    RevokedTokenRecord,
    SaveRecord,
    WatchSegment,
    parse_position,
)

# A pause between two saves or two probes that is longer counts as an interruption.
GAP_SECONDS = 0.5
# Signs of an unproven cache that are closer together belong to one interruption.
UNPROVEN_GAP_SECONDS = 1.5
STALENESS_SECONDS = 1.0
UNPROVEN_REASONS = {"store-unavailable", "news-unavailable", "read-only", "no-response"}

Histories = dict[ConfigKey, list[dict[str, Any] | None]]


@dataclass(frozen=True)
class StoredChange:
    """A change in the database after the failover."""

    position: tuple[int, ...]
    key: ConfigKey
    version: int


@dataclass(frozen=True)
class Interruption:
    """A time without something."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def compute_seconds_beside(self, others: Sequence[Interruption]) -> float:
        """Return the longest part of this time that no other interruption explains. The others are in order."""
        longest, free_since = 0.0, self.start
        for other in others:
            if other.end > self.start and other.start < self.end:
                longest = max(longest, other.start - free_since)
                free_since = max(free_since, other.end)
        return max(longest, self.end - free_since, 0.0)


@dataclass
class FailoverResult:
    """The measurements of one fault at one address, and every broken promise."""

    unsaved_seconds: float = 0.0
    unsaved_after_path_seconds: float = 0.0
    unproven_seconds: float = 0.0
    unproven_after_path_seconds: float = 0.0
    slowest_response_seconds: float = 0.0
    saves: int = 0
    saves_lost: int = 0
    reads: int = 0
    reads_refused: int = 0
    reads_stale_unmarked: int = 0
    revoked_tokens_accepted: int = 0
    unexpected_statuses: int = 0
    watcher_violations: int = 0
    # The result of verifying the audit chain.
    audit: str = ""
    is_recovered: bool = False
    has_restarted: bool = False
    is_cluster_whole: bool = True
    load_average: float = 0.0
    bad_log_lines: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    record: FailoverRecord, histories: Histories, stored: Sequence[StoredChange], *, may_lose: bool = False
) -> FailoverResult:
    """Compare a record with the database. With `may_lose`, the fault itself loses the last commits of the leader."""
    path = find_interruptions([*record.probes, record.ended_at], GAP_SECONDS)
    saved = [one.end for one in record.saves if one.version is not None]
    unsaved = find_interruptions([*saved, record.ended_at], GAP_SECONDS)
    unproven = find_unproven(record)
    lost = find_lost_saves(record.saves, histories)
    refused = [one for one in record.reads if one.is_cached and one.status != 200]
    stale = find_unmarked_stale_reads(record, lost) + find_unmarked_lost_reads(record, lost, path)
    accepted = find_accepted_tokens(record.revoked, lost if may_lose else [])
    unexpected = find_unexpected_statuses(record)
    watching = [found for segments in record.watchers for found in find_watcher_violations(segments, stored)]
    slowest = [one.end - one.start for one in record.saves] + [one.end - one.start for one in record.reads]
    result = FailoverResult(
        unsaved_seconds=_sum_seconds(unsaved),
        unsaved_after_path_seconds=max((one.compute_seconds_beside(path) for one in unsaved), default=0.0),
        unproven_seconds=_sum_seconds(unproven),
        unproven_after_path_seconds=max((one.compute_seconds_beside(path) for one in unproven), default=0.0),
        slowest_response_seconds=max(slowest),
        saves=len(saved),
        saves_lost=len(lost),
        reads=len(record.reads),
        reads_refused=len(refused),
        reads_stale_unmarked=len(stale),
        revoked_tokens_accepted=len(accepted),
        unexpected_statuses=len(unexpected),
        watcher_violations=len(watching),
    )
    broken: dict[str, Sequence[Any]] = {
        "lost": lost,
        "refused": refused,
        "stale": stale,
        "accepted": accepted,
        "unexpected": unexpected,
        "watcher": watching,
    }
    for name, found in broken.items():
        result.details += [f"{name}: {one}" for one in (*found[:3], *found[3:][-1:])]
    return result


def find_interruptions(times: Sequence[float], min_seconds: float) -> list[Interruption]:
    """Find the pauses between times that are longer than `min_seconds`."""
    return [Interruption(start, end) for start, end in pairwise(sorted(times)) if end - start > min_seconds]


def find_unproven(record: FailoverRecord) -> list[Interruption]:
    """Find the times in which reads were marked as stale, or health did not confirm the caches."""
    signs = [one.end for one in record.reads if one.is_stale]
    signs += [one.at for one in record.health if UNPROVEN_REASONS & set(one.reasons)]
    found: list[Interruption] = []
    for at in sorted(signs):
        is_same = bool(found) and at - found[-1].end <= UNPROVEN_GAP_SECONDS
        found.append(Interruption(found.pop().start if is_same else at, at))
    return found


def find_lost_saves(saves: Iterable[SaveRecord], histories: Histories) -> list[SaveRecord]:
    """Find acknowledged saves whose version is missing or has another value."""
    lost = []
    for one in saves:
        if one.version is None:
            continue
        history = histories.get(one.key, [])
        document = history[one.version - 1] if len(history) >= one.version else None
        if document is None or document.get("value") != one.value:
            lost.append(one)
    return lost


def find_unmarked_stale_reads(record: FailoverRecord, lost: Sequence[SaveRecord]) -> list[ReadRecord]:
    """Find unmarked reads that lack a save acknowledged more than a second before. Lost saves do not count."""
    acknowledged: dict[ConfigKey, list[tuple[float, int]]] = {}
    ignored = set(lost)
    for one in sorted(record.saves, key=lambda save: save.end):
        if one.version is not None and one not in ignored:
            known = acknowledged.setdefault(one.key, [])
            known.append((one.end, max(one.version, known[-1][1] if known else 0)))
    found = []
    for read in record.reads:
        if read.status != 200 or read.is_stale:
            continue
        required = max(
            (version for end, version in acknowledged.get(read.key, ()) if end < read.start - STALENESS_SECONDS),
            default=0,
        )
        if read.version < required:
            found.append(read)
    return found


def find_unmarked_lost_reads(
    record: FailoverRecord, lost: Sequence[SaveRecord], path: Sequence[Interruption]
) -> list[ReadRecord]:
    """Find unmarked reads of lost values more than a second after the database was reachable again."""
    allowed_until = {
        (one.key, one.value): min((gap.end for gap in path if gap.end > one.end), default=math.inf) + STALENESS_SECONDS
        for one in lost
    }
    return [
        read
        for read in record.reads
        if not read.is_stale and read.start > allowed_until.get((read.key, read.value or ""), math.inf)
    ]


def find_accepted_tokens(revoked: Sequence[RevokedTokenRecord], lost: Sequence[SaveRecord]) -> list[RevokedTokenRecord]:
    """Find unmarked reads with a token that was revoked more than a second before.

    A revocation that was acknowledged beside lost saves is lost itself.
    """
    first, last = min((one.start for one in lost), default=math.inf), max((one.end for one in lost), default=-math.inf)
    return [
        one
        for one in revoked
        if one.status == 200
        and not one.is_stale
        and not first - STALENESS_SECONDS <= one.revoked_at <= last + STALENESS_SECONDS
    ]


def find_unexpected_statuses(record: FailoverRecord) -> list[str]:
    """Find responses other than success and 503, and requests without a response."""
    found = [f"save {one}" for one in record.saves if one.status not in (200, 503)]
    found += [f"read {one}" for one in record.reads if one.status not in (200, 503)]
    found += [f"token {one}" for one in record.revoked if one.status not in (200, 401, 503)]
    return found + [f"{count} x {status}" for status, count in record.other.items() if status not in (200, 410, 503)]


def find_watcher_violations(segments: Sequence[WatchSegment], stored: Sequence[StoredChange]) -> list[str]:
    """Find changes that a watcher received twice, out of order, not at all, or that the database does not have.

    A watcher may have received lost changes, but only before its position was gone.
    """
    found: list[str] = []
    rows = {ReceivedChange(one.position, one.key, one.version) for one in stored}
    for segment in segments:
        positions = [one.position for one in segment.received]
        found += [f"{later} after {earlier}" for earlier, later in pairwise(positions) if later <= earlier]
        lost = [one for one in segment.received if one not in rows]
        if lost and not segment.is_gone:
            found += [f"received {one}, which is lost, and was not disconnected" for one in lost]
        # After a loss, other changes can have the positions of the lost ones.
        known = [one.position for one in lost]
        expected = {
            one
            for one in rows
            if parse_position(segment.start_id) < one.position <= parse_position(segment.last_id)
            and not (known and one.position >= min(known))
        }
        found += [f"missed {one}" for one in sorted(expected - set(segment.received), key=lambda one: one.position)]
    return found


def find_bad_log_lines(log: str) -> list[str]:
    """Find tracebacks and reasons without a text."""
    found = re.findall(r"^.*Traceback.*$", log, re.MULTILINE)
    for line in log.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        text = str(event.get("event", ""))
        if "exception" in event or re.search(r"reason=(?:\s|$)", text) or text.endswith((": ", ":")):
            found.append(line)
    return found


def _sum_seconds(interruptions: Iterable[Interruption]) -> float:
    return sum(one.seconds for one in interruptions)
