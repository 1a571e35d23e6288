"""A linearizability checker for the history of one key, whose versions order all writes."""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN = math.inf


@dataclass(frozen=True)
class Operation:
    """One operation as its client saw it, on the monotonic clock of the machine. A write merges one unique marker.

    A write without a response, or with a 5xx, may have been applied: its version is None and its end is infinite.
    """

    client: str
    kind: str  # write, read, or fresh (a read that bypasses the cache)
    call: float
    ret: float
    version: int | None
    marker: str = ""
    seen: frozenset[str] | None = None


def find_violations(
    ops: Sequence[Operation], final: Sequence[str], *, bound_seconds: float = 1.0, ignores_reads: bool = False
) -> list[str]:
    """Find where a history is not linearizable; plain reads may be as old as the bound.

    With `ignores_reads`, a read may miss a version that only other reads have returned.

    `final` holds the markers in version order. The sweep follows Gibbons and Korach, "Testing shared memories" (1997).
    """
    place = {marker: number for number, marker in enumerate(final, 1)}
    found = [] if len(place) == len(final) else ["a marker was applied twice"]
    writes: dict[int, Operation] = {}
    for op in ops:
        if op.kind != "write":
            continue
        at = place.get(op.marker)
        if op.version is not None and op.version != at:
            found.append(f"acknowledged as {op.version} but stored as {at}: {op}")
        if at is not None:
            writes[at] = op
    found += [f"version {number} has no write" for number in range(1, len(final) + 1) if number not in writes]
    return found + _sweep(ops, writes, final, bound_seconds, ignores_reads=ignores_reads)


def _sweep(
    ops: Sequence[Operation],
    writes: dict[int, Operation],
    final: Sequence[str],
    bound_seconds: float,
    *,
    ignores_reads: bool,
) -> list[str]:
    """Go through the operations by start time and compare each with the highest version returned before it."""
    found = []
    known, returned = 0, list[tuple[float, int]]()
    timed = [(op.call - (bound_seconds if op.kind == "read" else 0), op) for op in ops if op.version is not None]
    for begins, op in sorted(timed, key=lambda one: one[0]):
        while returned and returned[0][0] < begins:
            known = max(known, heapq.heappop(returned)[1])
        version = op.version or 0
        if op.kind == "write" and version <= known:
            found.append(f"started after {known} was complete: {op}")
        if op.kind != "write":
            if version < known:
                found.append(f"stale, {known} was known: {op}")
            if version and (version not in writes or writes[version].call > op.ret):
                found.append(f"read before its write started: {op}")
            if op.seen is not None and op.seen != frozenset(final[:version]):
                found.append(f"not the merge of all earlier versions: {op}")
        if op.kind == "write" or not ignores_reads:
            heapq.heappush(returned, (op.ret, version))
    return found


def find_session_violations(ops: Sequence[Operation]) -> list[str]:
    """Find where a client saw an older version than before; each client sends one request at a time."""
    found = []
    by_client = sorted((op for op in ops if op.version is not None), key=lambda op: (op.client, op.call))
    for _, own in itertools.groupby(by_client, key=lambda op: op.client):
        known = 0
        for op in own:
            if (op.version or 0) < known:
                found.append(f"{known} was known to this client: {op}")
            known = max(known, op.version or 0)
    return found


def measure_staleness(reads: Sequence[Operation], writes: Sequence[Operation]) -> list[float]:
    """Return the age of each read in seconds: how long before its start the oldest missing version was saved."""
    answered = sorted((op.version or 0, op.ret) for op in writes if op.version is not None)
    versions = [version for version, _ in answered]
    ages = []
    for read in reads:
        missed = answered[bisect.bisect_right(versions, read.version or 0) :]
        ages.append(max((read.call - ret for _, ret in missed), default=0.0))
    return [max(age, 0.0) for age in ages]
