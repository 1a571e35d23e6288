"""Test plans and workloads: strict parsing, even schedules and reproducible requests."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from confide.loadtest.plan import InvalidPlan, Plan, Stage, parse_mix, parse_stages
from confide.loadtest.workload import Workload, build_initial_configuration
from confide.time_formats import parse_duration


def build_plan(**fields: object) -> Plan:
    defaults = {"url": "http://127.0.0.1:8080", "stages": (Stage(2, 100),)}
    return Plan(**(defaults | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 3])
def test_requests_are_evenly_spaced_and_shared_by_the_workers(processes: int) -> None:
    plan = build_plan(stages=(Stage(2, 100), Stage(1, 500)), warm_up_seconds=1, processes=processes)
    schedules = [list(plan.schedule(worker=worker)) for worker in range(processes)]
    starts = sorted(itertools.chain(*schedules))
    assert len(starts) == 100 + 200 + 500
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert gaps[:299] == pytest.approx([0.01] * 299)
    assert gaps[301:] == pytest.approx([0.002] * (len(gaps) - 301))
    counts = [len(schedule) for schedule in schedules]
    assert max(counts) - min(counts) <= 1
    assert plan.total_seconds == 4


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("2m", 120), ("1h", 3_600), ("1.5s", 1.5), ("7", 7)]
)
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "0s", "-1s", "1w", "1e3s", "nan", "1 s", "1s1", "9999999999s"])
def test_an_invalid_duration_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_stopped_plan_ends_where_it_was_stopped() -> None:
    plan = Plan("http://x", (Stage(2, 10), Stage(3, 20)))
    truncated = [plan.truncate(seconds) for seconds in (1, 2, 4, 9)]
    assert [[(stage.seconds, stage.rate) for stage in each.stages] for each in truncated] == [
        [(1, 10)],
        [(2, 10)],
        [(2, 10), (2, 20)],
        [(2, 10), (3, 20)],
    ]


def test_mixes_and_stages_are_parsed() -> None:
    assert parse_mix("get=95, merge=4,list=1") == (("get", 95), ("merge", 4), ("list", 1))
    assert parse_mix("get=1,put=0") == (("get", 1),)
    assert parse_stages("10s:500,1m:2000") == (Stage(10, 500), Stage(60, 2_000))


@pytest.mark.parametrize(
    "text", ["", "get", "get=", "get=x", "get=-1", "get=nan", "get=inf", "get=0", "get=1,get=2", "drop=1"]
)
def test_an_invalid_mix_is_rejected(text: str) -> None:
    with pytest.raises(InvalidPlan):
        parse_mix(text)


@pytest.mark.parametrize("text", ["", "10s", "10s:", "10s:0", "10s:-1", "10s:inf", "s:5", "0s:5", "10x:5"])
def test_an_invalid_stage_is_rejected(text: str) -> None:
    with pytest.raises(InvalidPlan):
        parse_stages(text)


def test_requests_follow_weights_and_skew() -> None:
    plan = build_plan(mix=parse_mix("get=90,merge=5,put=2,list=2,versions=1"), tenants=50, types=2)
    workload = Workload(plan, ["t1", "t2"], worker=0)
    requests = [workload.draw() for _ in range(20_000)]
    operations = Counter(request.operation for request in requests)
    assert 17_500 < operations["get"] < 18_500
    assert set(operations) == {"get", "merge", "put", "list", "versions"}
    starts = {"merge": b"POST /config ", "put": b"PUT /config "}
    assert all(request.data.startswith(starts.get(request.operation, b"GET /config")) for request in requests)
    paths = Counter(request.data.split(b" ")[1] for request in requests if request.operation == "get")
    ranked = [count for _, count in paths.most_common()]
    assert ranked[0] > 8 * ranked[len(ranked) // 2]
    assert {request.data.split(b"Bearer ")[1].split(b"\r")[0] for request in requests} == {b"t1", b"t2"}
    for operation, data in requests[:2_000]:
        head, _, body = data.partition(b"\r\n\r\n")
        assert (b"content-length: %d" % len(body) in head.lower()) == bool(body)
        if operation == "merge":
            assert set(json.loads(body)) == {"tenant", "integration_type", "configuration"}


def test_without_skew_all_keys_are_equally_likely() -> None:
    workload = Workload(build_plan(mix=(("get", 1.0),), tenants=10, types=1, skew=0.0), ["t"], worker=0)
    counts = Counter(workload.draw().data for _ in range(10_000))
    assert len(counts) == 10
    assert max(counts.values()) < 1.3 * min(counts.values())


def test_only_the_same_seed_and_worker_draw_the_same_requests() -> None:
    def draw(seed: int, worker: int) -> list[bytes]:
        workload = Workload(build_plan(seed=seed), ["t"], worker=worker)
        return [workload.draw().data for _ in range(200)]

    assert draw(1, 0) == draw(1, 0)
    assert draw(1, 0) != draw(2, 0)
    assert draw(1, 0) != draw(1, 1)


def test_a_config_of_the_load_generator_has_a_typical_size() -> None:
    assert 150 < len(json.dumps(build_initial_configuration("load-000001"))) < 400
