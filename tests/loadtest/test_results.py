"""Test results of runs, their comparison and the search for the highest rate."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from confide.loadtest.comparison import compare_results, find_plan_differences, has_more_errors
from confide.loadtest.plan import Plan, Stage
from confide.loadtest.recorder import LatencyRecorder, create_histogram
from confide.loadtest.report import build_table_rows, format_summary, render_report
from confide.loadtest.results import InvalidResult, Result, build_result, read_result
from confide.loadtest.search import LatencyLimit, Trial, find_max_rate, judge_trial

SECONDS = 20


def simulate_run(*, median_ms: float, seed: int = 1, spread: float = 0.3, errors: int = 0) -> Result:
    """Build the result of two workers with random latencies around a median."""
    rng = random.Random(seed)
    plan = Plan("http://x", (Stage(SECONDS, 200),), warm_up_seconds=1, mix=(("get", 3.0), ("merge", 1.0)), processes=2)
    measurements = []
    for _ in range(2):
        recorder = LatencyRecorder()
        for number in range(-1, SECONDS):
            second = recorder.open_second(number)
            for index in range(100):
                second.intended += 1
                second.record("get" if index % 4 else "merge", median_ms * 1e3 * rng.lognormvariate(0, spread))
        if errors:
            recorder.open_second(5).errors["503"] = errors
        lag = create_histogram()
        lag.record_value(50)
        encoded_lag = lag.encode().decode()
        measurements.append({"seconds": recorder.encode_all(), "lag": encoded_lag, "cpu_share": 0.2, "shortages": 0})
    return build_result(plan, measurements, began_at=1_790_000_000.0)


def test_workers_are_merged_without_the_warm_up() -> None:
    result = simulate_run(median_ms=2)
    assert (result.intended, result.answered) == (4_000, 4_000)
    total, get, merge = result.summarize_all()
    assert (total["answered"], get["answered"], merge["answered"]) == (4_000, 3_000, 1_000)
    assert total["rate"] == 200
    assert total["p50_ms"] == pytest.approx(2, rel=0.05)
    assert total["p50_ms"] < total["p90_ms"] < total["p99_ms"] <= total["p99.9_ms"] <= total["max_ms"]


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = simulate_run(median_ms=2, errors=3)
    (tmp_path / "a.json").write_text(result.to_json())
    read = read_result(tmp_path / "a.json")
    assert read.summarize_all() == result.summarize_all()
    assert read.errors == result.errors == {"503": 6}
    assert "6 errors (0.15%): 6 x 503" in format_summary(read)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "plan": {}, "seconds": []}']
)
def test_a_file_that_is_not_a_result_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InvalidResult):
        read_result(tmp_path / "a.json")


@pytest.mark.parametrize("histogram", ["", "AAAA", "HISTFAAAAB", "HISTFAAAAAx", 5, None])
def test_a_result_with_a_damaged_histogram_is_rejected(tmp_path: Path, histogram: object) -> None:
    document = json.loads(simulate_run(median_ms=2).to_json())
    document["seconds"][0]["histograms"] = {"get": histogram}
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(InvalidResult):
        read_result(tmp_path / "a.json")


def test_equal_runs_are_within_the_noise_and_ten_percent_more_latency_exceeds_it() -> None:
    before = simulate_run(median_ms=2, seed=1)
    equal = {each.name: each for each in compare_results(before, simulate_run(median_ms=2, seed=2))}
    slower = {each.name: each for each in compare_results(before, simulate_run(median_ms=2.2, seed=3))}
    assert equal.keys() == {"p50", "p99"}
    assert not equal["p50"].is_significant
    assert slower["p50"].is_slower
    assert slower["p50"].percent == pytest.approx(10, abs=3)
    assert "exceeds the noise" in slower["p50"].describe()
    faster = compare_results(before, simulate_run(median_ms=1.8, seed=4))[0]
    assert faster.is_significant
    assert not faster.is_slower


def test_different_plans_and_more_errors_are_detected() -> None:
    before, failing = simulate_run(median_ms=2), simulate_run(median_ms=2, seed=2, errors=50)
    assert find_plan_differences(before, failing) == []
    assert not has_more_errors(before, simulate_run(median_ms=2, errors=1))
    assert has_more_errors(before, failing)
    assert not has_more_errors(failing, before)
    document = json.loads(before.to_json())
    document["plan"]["tenants"], document["plan"]["skew"] = 5, 0.0
    assert find_plan_differences(before, Result(document)) == ["tenants", "skew"]


def test_a_result_reports_when_the_generator_was_the_limit() -> None:
    document = json.loads(simulate_run(median_ms=2).to_json())
    assert Result(document).find_generator_limits() == []
    lag = create_histogram()
    lag.record_value(9_000)
    document["generator"] = {"cpu_shares": [0.3, 0.93], "lag": lag.encode().decode(), "shortages": 12}
    busy, late, short = Result(document).find_generator_limits()
    assert "93% of a core" in busy
    assert "9.0 ms late" in late
    assert "12 requests" in short


def test_equal_runs_seldom_exceed_the_noise() -> None:
    significant = sum(
        each.is_significant
        for seed in range(20)
        for each in compare_results(simulate_run(median_ms=2, seed=seed), simulate_run(median_ms=2, seed=seed + 1_000))
        if each.name == "p50"
    )
    assert significant <= 4  # 5 % of 20 is 1


def test_a_run_without_responses_is_reported_but_not_compared() -> None:
    document = json.loads(simulate_run(median_ms=2).to_json())
    for second in document["seconds"]:
        second["answered"], second["histograms"] = {}, {}
    unanswered = Result(document)
    assert compare_results(unanswered, simulate_run(median_ms=2)) == []
    assert build_table_rows(unanswered)[0][:3] == ["all", 0, 0.0]
    assert "<h1>" in render_report(unanswered)


def test_the_search_finds_the_highest_rate_within_five_percent() -> None:
    rates: list[float] = []

    def try_rate(rate: float) -> Trial:
        rates.append(rate)
        return Trial(rate, simulate_run(median_ms=1), is_sustained=rate <= 3_333, reason="")

    best, trials = find_max_rate(100, try_rate)
    assert best is not None
    assert 3_333 * 0.95 <= best.rate <= 3_333
    assert len(trials) == len(rates) < 15


def test_the_search_lowers_a_start_rate_that_is_too_high() -> None:
    best, _ = find_max_rate(1_000, lambda rate: Trial(rate, simulate_run(median_ms=1), rate <= 40, ""))
    assert best is not None
    assert 38 <= best.rate <= 40


def test_the_search_ends_below_one_request_per_second() -> None:
    best, trials = find_max_rate(64, lambda rate: Trial(rate, simulate_run(median_ms=1), is_sustained=False, reason=""))
    assert (best, len(trials)) == (None, 7)


def test_a_rate_is_sustained_within_the_limits_of_latency_and_errors() -> None:
    limit = LatencyLimit(99, 10)
    assert judge_trial(200, simulate_run(median_ms=1), limit).is_sustained
    assert not judge_trial(200, simulate_run(median_ms=20), limit).is_sustained
    failing = judge_trial(200, simulate_run(median_ms=1, errors=10), limit)
    assert not failing.is_sustained
    assert "20 errors" in failing.reason
