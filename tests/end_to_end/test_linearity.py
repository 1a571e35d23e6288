"""The linearizability checker finds each deliberate fault, and none in a correct history."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from support.linearizability import UNKNOWN, Operation, find_session_violations, find_violations, measure_staleness


def write(version: int | None, call: float, ret: float, marker: str = "") -> Operation:
    return Operation("w", "write", call, ret, version, marker or f"m{version}")


def read(version: int, call: float, ret: float, *, kind: str = "read", client: str = "r") -> Operation:
    return Operation(client, kind, call, ret, version, seen=frozenset(f"m{n}" for n in range(1, version + 1)))


FINAL = ["m1", "m2", "m3"]
GOOD = [
    write(1, 0, 1),
    write(2, 2, 3),
    write(None, 4, UNKNOWN, "m3"),
    read(0, 0.5, 0.9),
    read(1, 3.5, 3.6),  # half a second old
    read(2, 3.5, 3.6, kind="fresh"),
    read(3, 6, 7),
]


def test_a_history_as_it_should_be_has_no_fault() -> None:
    assert find_violations(GOOD, FINAL) == []


def test_without_a_bound_only_reads_behind_an_answered_write_are_found_if_reads_are_ignored() -> None:
    ops = [write(1, 0, 1), write(2, 2, 3), write(3, 4, UNKNOWN), read(3, 5, 6), read(2, 7, 8)]
    assert find_violations(ops, FINAL) == []
    assert find_violations(ops, FINAL, bound_seconds=0, ignores_reads=True) == []
    assert any("stale" in found for found in find_violations(ops, FINAL, bound_seconds=0))
    ops.append(read(1, 7, 8))
    assert any("stale" in found for found in find_violations(ops, FINAL, bound_seconds=0, ignores_reads=True))


@pytest.mark.parametrize(
    ("wrong", "final", "violation"),
    [
        ([read(1, 4.5, 5)], FINAL, "stale"),
        ([read(1, 3.5, 3.6, kind="fresh")], FINAL, "stale"),
        ([read(3, 3.2, 3.9)], FINAL, "before its write started"),
        ([replace(read(2, 4, 5), seen=frozenset({"m2"}))], FINAL, "not the merge"),
        ([write(2, 8, 9, "m4")], [*FINAL, "m4"], "acknowledged as 2 but stored as 4"),
        ([write(4, 8, 9, "m4")], FINAL, "stored as None"),
        ([], [*FINAL, "m5"], "has no write"),
        ([], [*FINAL, "m1"], "applied twice"),
    ],
)
def test_each_deliberate_fault_is_found(wrong: list[Operation], final: list[str], violation: str) -> None:
    assert any(violation in found for found in find_violations([*GOOD, *wrong], final))


def test_a_write_that_began_after_a_later_version_was_complete_is_found() -> None:
    ops = [write(2, 0, 1), write(1, 2, 3)]
    assert any("started after 2 was complete" in found for found in find_violations(ops, ["m1", "m2"]))


def test_time_that_runs_backwards_for_one_client_is_found_and_for_two_is_not() -> None:
    assert find_session_violations([read(2, 1, 2, client="a"), read(1, 3, 4, client="b")]) == []
    assert find_session_violations([read(2, 1, 2, client="a"), read(1, 3, 4, client="a")]) != []


def test_staleness_is_counted_from_the_answer_to_the_oldest_version_that_was_missed() -> None:
    writes = [write(1, 0, 1), write(2, 2, 3), write(3, 4, 5)]
    assert measure_staleness([read(3, 9, 9), read(1, 9, 9), read(2, 4.5, 4.6)], writes) == [0.0, 6.0, 0.0]


def test_a_hundred_thousand_operations_are_checked_and_one_stale_read_among_them_is_found() -> None:
    chance = random.Random(5)
    final = [f"m{n}" for n in range(1, 20_001)]
    ops = [write(n, n, n + 0.5) for n in range(1, 20_001)]
    for _ in range(80_000):
        at = chance.uniform(1, 20_000)
        ops.append(Operation("r", "fresh", at, at + 0.1, int(at) if at % 1 > 0.5 else int(at) - 1))
    assert find_violations(ops, final) == []
    ops.append(Operation("r", "fresh", 9_000.8, 9_000.9, 8_999))
    assert len(find_violations(ops, final)) == 1
