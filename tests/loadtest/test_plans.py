"""Plans are read strictly, arrivals are even, and the same seed draws the same calls."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from confide.loadtest.calls import Calls, first_configuration
from confide.loadtest.plans import BadPlan, Plan, Stage, read_mix, read_stages
from confide.time_formats import parse_duration


def plan(**more: object) -> Plan:
    given = {"url": "http://127.0.0.1:8080", "stages": (Stage(2, 100),), **more}
    return Plan(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 3])
def test_arrivals_are_even_and_shared_by_the_processes(processes: int) -> None:
    asked = plan(stages=(Stage(2, 100), Stage(1, 500)), warm_up_seconds=1, processes=processes)
    all_of_them = sorted(due for share in range(processes) for due in asked.arrivals(share=share))
    assert len(all_of_them) == 100 + 200 + 500
    gaps = [later - sooner for sooner, later in itertools.pairwise(all_of_them)]
    assert gaps[:299] == pytest.approx([0.01] * 299)
    assert gaps[301:] == pytest.approx([0.002] * (len(gaps) - 301))
    shares = [len(list(asked.arrivals(share=share))) for share in range(processes)]
    assert max(shares) - min(shares) <= 1
    assert asked.seconds == 4


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("2m", 120), ("1h", 3_600), ("1.5s", 1.5), ("7", 7)]
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "0s", "-1s", "1w", "1e3s", "nan", "1 s", "1s1", "9999999999s"])
def test_a_span_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_plan_is_cut_where_it_was_stopped() -> None:
    plan = Plan("http://x", (Stage(2, 10), Stage(3, 20)))
    assert [[(stage.seconds, stage.rate) for stage in plan.cut(seconds).stages] for seconds in (1, 2, 4, 9)] == [
        [(1, 10)],
        [(2, 10)],
        [(2, 10), (2, 20)],
        [(2, 10), (3, 20)],
    ]


def test_mixes_and_stages_are_read() -> None:
    assert read_mix("get=95, merge=4,list=1") == (("get", 95), ("merge", 4), ("list", 1))
    assert read_mix("get=1,put=0") == (("get", 1),)
    assert read_stages("10s:500,1m:2000") == (Stage(10, 500), Stage(60, 2_000))


@pytest.mark.parametrize(
    "text", ["", "get", "get=", "get=x", "get=-1", "get=nan", "get=inf", "get=0", "get=1,get=2", "drop=1"]
)
def test_a_mix_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadPlan):
        read_mix(text)


@pytest.mark.parametrize("text", ["", "10s", "10s:", "10s:0", "10s:-1", "10s:inf", "s:5", "0s:5", "10x:5"])
def test_a_stage_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadPlan):
        read_stages(text)


def test_calls_are_drawn_by_their_weights_and_skew() -> None:
    asked = plan(mix=read_mix("get=90,merge=5,put=2,list=2,versions=1"), tenants=50, types=2)
    calls = Calls(asked, ["t1", "t2"], share=0)
    drawn = [calls.next() for _ in range(20_000)]
    names = Counter(name for name, _ in drawn)
    assert 17_500 < names["get"] < 18_500
    assert set(names) == {"get", "merge", "put", "list", "versions"}
    assert all(
        data.startswith({"merge": b"POST /config ", "put": b"PUT /config "}.get(name, b"GET /config"))
        for name, data in drawn
    )
    keys = Counter(data.split(b" ")[1] for name, data in drawn if name == "get")
    ranked = [count for _, count in keys.most_common()]
    assert ranked[0] > 8 * ranked[len(ranked) // 2]
    assert {data.split(b"Bearer ")[1].split(b"\r")[0] for _, data in drawn} == {b"t1", b"t2"}
    for name, data in drawn[:2_000]:
        head, _, body = data.partition(b"\r\n\r\n")
        assert (b"content-length: %d" % len(body) in head.lower()) == bool(body)
        if name == "merge":
            assert set(json.loads(body)) == {"tenant", "integration_type", "configuration"}


def test_without_skew_all_keys_are_alike() -> None:
    calls = Calls(plan(mix=(("get", 1.0),), tenants=10, types=1, skew=0.0), ["t"], share=0)
    keys = Counter(calls.next()[1] for _ in range(10_000))
    assert len(keys) == 10
    assert max(keys.values()) < 1.3 * min(keys.values())


def test_the_same_seed_draws_the_same_calls_and_another_one_others() -> None:
    def drawn(seed: int, share: int) -> list[bytes]:
        calls = Calls(plan(seed=seed), ["t"], share=share)
        return [calls.next()[1] for _ in range(200)]

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(2, 0)
    assert drawn(1, 0) != drawn(1, 1)
    assert 150 < len(json.dumps(first_configuration("load-000001"))) < 400
