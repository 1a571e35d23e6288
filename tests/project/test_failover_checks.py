"""The checks of a failover find each broken promise, and only those."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from confide.names import ConfigKey
from support.failover_checks import (
    FailoverResult,
    Interruption,
    StoredChange,
    evaluate,
    find_bad_log_lines,
    find_interruptions,
)
from support.failover_load import (
    FailoverRecord,
    HealthRecord,
    ReadRecord,
    ReceivedChange,
    RevokedTokenRecord,
    SaveRecord,
    WatchSegment,
)

KEY = ConfigKey("acme", "failover-0")
# The leader is away from 10 s to 20 s. The first save after it returns at 20.5 s.
SAVE_TIMES = (*range(1, 11), 20.5, *range(21, 31))
VERSIONS = range(1, len(SAVE_TIMES) + 1)


def build_record() -> FailoverRecord:
    """Build the record of a failover that keeps every promise."""
    record = FailoverRecord(ended_at=31)
    for version, at in zip(VERSIONS, SAVE_TIMES, strict=True):
        record.saves.append(SaveRecord(KEY, f"value {version}", at - 0.01, at, 200, version))
        record.reads.append(ReadRecord(KEY, at + 0.1, at + 0.11, 200, version, f"value {version}", is_stale=False))
    record.saves.append(SaveRecord(KEY, "unknown", 12, 13, 503, None))
    record.reads += [ReadRecord(KEY, at - 0.1, at, 200, 10, "value 10", is_stale=True) for at in range(11, 22)]
    record.reads.append(ReadRecord(KEY, 16, 16.1, 503, 0, None, is_stale=False, is_cached=False))
    record.probes += [at / 10 for at in (*range(10, 100), *range(200, 310))]
    record.health += [HealthRecord(5, ()), HealthRecord(15, ("store-unavailable",)), HealthRecord(25, ())]
    record.revoked.append(RevokedTokenRecord(3, 4.5, 401, is_stale=False))
    received = [ReceivedChange((700, version), KEY, version) for version in VERSIONS]
    record.watchers.append([WatchSegment("e.700.0", "e.900.0", received)])
    record.other.update((200, 503))
    return record


def build_histories() -> dict[ConfigKey, list[dict[str, Any] | None]]:
    return {KEY: [{"value": f"value {version}"} for version in VERSIONS]}


def build_stored() -> list[StoredChange]:
    return [StoredChange((700, version), KEY, version) for version in VERSIONS]


def evaluate_record(record: FailoverRecord, *, may_lose: bool = False) -> FailoverResult:
    return evaluate(record, build_histories(), build_stored(), may_lose=may_lose)


def test_a_failover_that_keeps_every_promise_is_measured_and_has_no_finding() -> None:
    result = evaluate_record(build_record())
    assert result.details == []
    assert result.saves == len(VERSIONS)
    # This record has a save a second, and no pause after the path is back is longer.
    assert result.unsaved_after_path_seconds == pytest.approx(1.0)
    # The last read that is marked stale ends at 21 s, a second after the path is back.
    assert result.unproven_seconds == pytest.approx(10.0)
    assert result.unproven_after_path_seconds == pytest.approx(1.0)


def test_only_the_time_in_which_the_path_was_there_counts_as_time_after_it() -> None:
    (unsaved,) = find_interruptions([1.0, 1.2, 11.0, 11.1], 0.5)
    assert unsaved.seconds == pytest.approx(9.8)
    assert unsaved.compute_seconds_beside([]) == pytest.approx(9.8)
    assert unsaved.compute_seconds_beside([Interruption(0, 1.1), Interruption(1.3, 10.25)]) == pytest.approx(0.75)
    # The path was there for 3 s and went away again.
    assert unsaved.compute_seconds_beside([Interruption(1.2, 4), Interruption(7, 12)]) == pytest.approx(3.0)
    # Saves returned before the probe did.
    assert unsaved.compute_seconds_beside([Interruption(1.3, 11.5)]) == pytest.approx(0.1)


def test_saves_that_never_return_count_until_the_end_of_the_load() -> None:
    record = build_record()
    record.ended_at = 100
    record.probes += [at / 10 for at in range(310, 1000)]
    assert evaluate_record(record).unsaved_after_path_seconds == pytest.approx(70.0)


def lose_save(record: FailoverRecord) -> None:
    record.saves[4] = replace(record.saves[4], value="acknowledged, but not in the database")


def lose_last_save(record: FailoverRecord) -> None:
    record.saves.append(SaveRecord(KEY, "lost", 30.5, 30.6, 200, len(VERSIONS) + 1))


def refuse_read(record: FailoverRecord) -> None:
    record.reads.append(ReadRecord(KEY, 16, 16.1, 503, 0, None, is_stale=False))


def serve_old_version_unmarked(record: FailoverRecord) -> None:
    record.reads.append(ReadRecord(KEY, 25.0, 25.1, 200, 3, "value 3", is_stale=False))


def accept_revoked_token(record: FailoverRecord) -> None:
    record.revoked.append(RevokedTokenRecord(3, 4.5, 200, is_stale=False))


def answer_500(record: FailoverRecord) -> None:
    record.reads.append(ReadRecord(KEY, 16, 16.1, 500, 0, None, is_stale=False, is_cached=False))


def close_without_response(record: FailoverRecord) -> None:
    record.saves.append(SaveRecord(KEY, "none", 16, 17, 0, None))


def swallow_change(record: FailoverRecord) -> None:
    del record.watchers[0][0].received[5]


def repeat_change(record: FailoverRecord) -> None:
    received = record.watchers[0][0].received
    received.insert(5, received[4])


def swap_changes(record: FailoverRecord) -> None:
    received = record.watchers[0][0].received
    received[4], received[5] = received[5], received[4]


def send_lost_change(record: FailoverRecord) -> None:
    record.watchers[0][0].received.append(ReceivedChange((700, 500), KEY, 99))


@pytest.mark.parametrize(
    ("break_promise", "name", "count"),
    [
        (lose_save, "saves_lost", 1),
        (lose_last_save, "saves_lost", 1),
        (refuse_read, "reads_refused", 1),
        (serve_old_version_unmarked, "reads_stale_unmarked", 1),
        (accept_revoked_token, "revoked_tokens_accepted", 1),
        (answer_500, "unexpected_statuses", 1),
        (close_without_response, "unexpected_statuses", 1),
        (swallow_change, "watcher_violations", 1),
        (repeat_change, "watcher_violations", 1),
        (swap_changes, "watcher_violations", 1),
        (send_lost_change, "watcher_violations", 1),
    ],
)
def test_a_deliberately_broken_promise_is_found(break_promise: Any, name: str, count: int) -> None:
    record = build_record()
    break_promise(record)
    result = evaluate_record(record)
    assert getattr(result, name) == count
    assert result.details
    assert sum(getattr(result, other) for other in COUNTS) == count


COUNTS = (
    "saves_lost",
    "reads_refused",
    "reads_stale_unmarked",
    "revoked_tokens_accepted",
    "unexpected_statuses",
    "watcher_violations",
)


def test_a_watcher_may_have_received_lost_changes_before_its_position_was_gone() -> None:
    record = build_record()
    (segments,) = record.watchers
    first = segments[0]
    after = WatchSegment("f.700.10", "f.900.0", first.received[10:])
    lost = ReceivedChange((700, 11), KEY, 99)
    segments[:] = [WatchSegment("e.700.0", "e.700.11", [*first.received[:10], lost], is_gone=True), after]
    assert evaluate_record(record).watcher_violations == 0
    segments[0].is_gone = False
    assert evaluate_record(record).watcher_violations == 1


def test_a_watcher_that_started_again_receives_everything_after_its_new_start() -> None:
    record = build_record()
    (segments,) = record.watchers
    first = segments[0]
    segments[:] = [
        WatchSegment("e.700.0", "e.700.10", first.received[:10], is_gone=True),
        WatchSegment("f.700.10", "f.900.0", first.received[12:]),
    ]
    assert evaluate_record(record).watcher_violations == 2


def test_an_unmarked_read_of_a_lost_value_after_the_failover_is_found() -> None:
    record = build_record()
    record.saves[9] = replace(record.saves[9], value="lost")
    record.reads.append(ReadRecord(KEY, 20.5, 20.6, 200, 10, "lost", is_stale=False))
    record.reads.append(ReadRecord(KEY, 22.0, 22.1, 200, 100, "lost", is_stale=True))
    assert evaluate_record(record).reads_stale_unmarked == 0
    record.reads.append(ReadRecord(KEY, 22.0, 22.1, 200, 100, "lost", is_stale=False))
    assert evaluate_record(record).reads_stale_unmarked == 1


def test_a_revocation_that_the_leader_lost_with_its_last_saves_is_not_counted() -> None:
    record = build_record()
    lose_last_save(record)
    record.revoked.append(RevokedTokenRecord(30.5, 33.0, 200, is_stale=False))
    assert evaluate_record(record, may_lose=True).revoked_tokens_accepted == 0
    assert evaluate_record(record).revoked_tokens_accepted == 1


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        json.dumps({"event": "change_feed_unavailable reason="}),
        json.dumps({"event": "watch_log_unavailable reason=The database cannot be reached: "}),
        json.dumps({"event": "request_failed", "exception": "ValueError"}),
    ],
)
def test_a_traceback_or_an_empty_reason_in_the_log_is_found(line: str) -> None:
    good = json.dumps({"event": "change_feed_unavailable reason=timeout", "level": "warning"})
    assert find_bad_log_lines(f"{good}\n") == []
    assert find_bad_log_lines(f"{good}\n{line}\n") == [line]
