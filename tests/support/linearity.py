"""The history of one key, checked in one sweep: versions order all writes, so a violation shows as one pair."""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN = math.inf


@dataclass(frozen=True)
class Op:
    """One operation as its client saw it, on the monotonic clock of one machine; a write merges one unique marker.

    A write without an answer, or with a 5xx, may have happened: its version is None and it returned never.
    """

    client: str
    kind: str  # write, read, fresh (demands what the store says now)
    call: float
    ret: float
    version: int | None
    marker: str = ""
    seen: frozenset[str] | None = None


def faults_of(ops: Sequence[Op], final: Sequence[str], *, bound_seconds: float = 1.0) -> list[str]:
    """What was not linearizable; plain reads may be as old as the bound. `final` are the markers in version order.

    After the sweep of Gibbons and Korach ("Testing shared memories", 1997) for histories whose values are versions.
    """
    place = {marker: number for number, marker in enumerate(final, 1)}
    found = [] if len(place) == len(final) else ["a marker was applied twice"]
    writes: dict[int, Op] = {}
    for op in ops:
        if op.kind != "write":
            continue
        at = place.get(op.marker)
        if op.version is not None and op.version != at:
            found.append(f"acknowledged as {op.version} and lies at {at}: {op}")
        if at is not None:
            writes[at] = op
    found += [f"version {number} was written by nobody" for number in range(1, len(final) + 1) if number not in writes]
    return found + _swept(ops, writes, final, bound_seconds)


def _swept(ops: Sequence[Op], writes: dict[int, Op], final: Sequence[str], bound_seconds: float) -> list[str]:
    """Walk through the operations as they began, knowing the highest version that was answered before."""
    found = []
    known, returned = 0, list[tuple[float, int]]()
    timed = [(op.call - (bound_seconds if op.kind == "read" else 0), op) for op in ops if op.version is not None]
    for begins, op in sorted(timed, key=lambda one: one[0]):
        while returned and returned[0][0] < begins:
            known = max(known, heapq.heappop(returned)[1])
        version = op.version or 0
        if op.kind == "write" and version <= known:
            found.append(f"began after {known} was complete: {op}")
        if op.kind != "write":
            if version < known:
                found.append(f"stale, {known} was known: {op}")
            if version and (version not in writes or writes[version].call > op.ret):
                found.append(f"read before it was begun: {op}")
            if op.seen is not None and op.seen != frozenset(final[:version]):
                found.append(f"not the merge of all before: {op}")
        heapq.heappush(returned, (op.ret, version))
    return found


def session_faults(ops: Sequence[Op]) -> list[str]:
    """Where time ran backwards for one client, which always says what it knows and does one thing at a time."""
    found = []
    by_client = sorted((op for op in ops if op.version is not None), key=lambda op: (op.client, op.call))
    for _, own in itertools.groupby(by_client, key=lambda op: op.client):
        known = 0
        for op in own:
            if (op.version or 0) < known:
                found.append(f"{known} was known to this client: {op}")
            known = max(known, op.version or 0)
    return found


def staleness(reads: Sequence[Op], writes: Sequence[Op]) -> list[float]:
    """For each read, how long before it began the oldest version that it did not show was answered; 0 if none was."""
    answered = sorted((op.version or 0, op.ret) for op in writes if op.version is not None)
    versions = [version for version, _ in answered]
    ages = []
    for read in reads:
        missed = answered[bisect.bisect_right(versions, read.version or 0) :]
        ages.append(max((read.call - ret for _, ret in missed), default=0.0))
    return [max(age, 0.0) for age in ages]
