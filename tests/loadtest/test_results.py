"""Results are kept, read again, compared with their noise, and searched by."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from confide.loadtest.plans import Plan, Stage
from confide.loadtest.recording import Seconds, new_histogram
from confide.loadtest.result_page import result_page, summary, table_rows
from confide.loadtest.results import BadResult, Result, differences, has_more_errors, read_result, result_of, unlike
from confide.loadtest.searching import Bound, Trial, find_max, verdict

SECONDS = 20


def result(*, median: float, seed: int = 1, spread: float = 0.3, errors: int = 0) -> Result:
    """A run of two processes whose latencies, in milliseconds, are drawn about a median."""
    drawn = random.Random(seed)
    plan = Plan("http://x", (Stage(SECONDS, 200),), warm_up_seconds=1, mix=(("get", 3.0), ("merge", 1.0)), processes=2)
    done = []
    for _ in range(2):
        seconds = Seconds()
        for number in range(-1, SECONDS):
            second = seconds.of(number)
            for one in range(100):
                second.intended += 1
                second.note("get" if one % 4 else "merge", median * 1e3 * drawn.lognormvariate(0, spread))
        if errors:
            seconds.of(5).errors["503"] = errors
        lag = new_histogram()
        lag.record_value(50)
        done.append({"seconds": seconds.documents(), "lag": lag.encode().decode(), "cpu_share": 0.2, "shortages": 0})
    return result_of(plan, done, began_at=1_790_000_000.0)


def test_processes_are_added_up_without_the_warming_up() -> None:
    found = result(median=2)
    assert (found.intended, found.answered) == (4_000, 4_000)
    all_, get, merge = found.lines()
    assert (all_["answered"], get["answered"], merge["answered"]) == (4_000, 3_000, 1_000)
    assert all_["rate"] == 200
    assert all_["p50_ms"] == pytest.approx(2, rel=0.05)
    assert all_["p50_ms"] < all_["p90_ms"] < all_["p99_ms"] <= all_["p99.9_ms"] <= all_["max_ms"]


def test_a_result_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    found = result(median=2, errors=3)
    (tmp_path / "a.json").write_text(found.text())
    again = read_result(tmp_path / "a.json")
    assert again.lines() == found.lines()
    assert again.errors == found.errors == {"503": 6}
    assert "6 errors (0.15%): 6 x 503" in summary(again)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "plan": {}, "seconds": []}']
)
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadResult):
        read_result(tmp_path / "a.json")


@pytest.mark.parametrize("histogram", ["", "AAAA", "HISTFAAAAB", "HISTFAAAAAx", 5, None])
def test_a_result_whose_histograms_are_damaged_is_refused(tmp_path: Path, histogram: object) -> None:
    document = json.loads(result(median=2).text())
    document["seconds"][0]["histograms"] = {"get": histogram}
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(BadResult):
        read_result(tmp_path / "a.json")


def test_the_same_twice_is_within_the_noise_and_a_tenth_more_exceeds_it() -> None:
    base = result(median=2, seed=1)
    same = {one.name: one for one in differences(base, result(median=2, seed=2))}
    slower = {one.name: one for one in differences(base, result(median=2.2, seed=3))}
    assert same.keys() == {"p50", "p99"}
    assert not same["p50"].exceeds_noise
    assert slower["p50"].is_slower
    assert slower["p50"].percent == pytest.approx(10, abs=3)
    assert "exceeds the noise" in slower["p50"].sentence()
    quicker = differences(base, result(median=1.8, seed=4))[0]
    assert quicker.exceeds_noise
    assert not quicker.is_slower


def test_runs_that_are_not_alike_or_failed_more_are_told_apart() -> None:
    base, failing = result(median=2), result(median=2, seed=2, errors=50)
    assert unlike(base, failing) == []
    assert not has_more_errors(base, result(median=2, errors=1))
    assert has_more_errors(base, failing)
    assert not has_more_errors(failing, base)
    other = json.loads(base.text())
    other["plan"]["tenants"], other["plan"]["skew"] = 5, 0.0
    assert unlike(base, Result(other)) == ["tenants", "skew"]


def test_what_speaks_for_the_generator_as_the_limit_is_said() -> None:
    document = json.loads(result(median=2).text())
    assert Result(document).limits() == []
    lag = new_histogram()
    lag.record_value(9_000)
    document["generator"] = {"cpu_shares": [0.3, 0.93], "lag": lag.encode().decode(), "shortages": 12}
    said = Result(document).limits()
    assert [any(words in line for line in said) for words in ("93% of a core", "9.0 ms late", "12 requests")] == [
        True
    ] * 3


def test_the_judgement_is_seldom_wrong_about_runs_that_do_not_differ() -> None:
    wrong = sum(
        one.exceeds_noise
        for seed in range(20)
        for one in differences(result(median=2, seed=seed), result(median=2, seed=seed + 1_000))
        if one.name == "p50"
    )
    assert wrong <= 4  # 5 % of 20 is 1


def test_a_run_of_which_nothing_was_answered_is_not_compared() -> None:
    document = json.loads(result(median=2).text())
    for second in document["seconds"]:
        second["answered"], second["histograms"] = {}, {}
    silent = Result(document)
    assert differences(silent, result(median=2)) == []
    assert table_rows(silent)[0][:3] == ["all", 0, 0.0]
    assert "<h1>" in result_page(silent)


def test_the_search_finds_the_highest_rate_within_a_twentieth() -> None:
    tried: list[float] = []

    def try_rate(rate: float) -> Trial:
        tried.append(rate)
        return Trial(rate, result(median=1), is_borne=rate <= 3_333, why="")

    best, trials = find_max(100, try_rate)
    assert best is not None
    assert 3_333 * 0.95 <= best.rate <= 3_333
    assert len(trials) == len(tried) < 15


def test_the_search_goes_down_where_the_first_rate_is_too_much_and_gives_up_at_nothing() -> None:
    best, _ = find_max(1_000, lambda rate: Trial(rate, result(median=1), is_borne=rate <= 40, why=""))
    assert best is not None
    assert 38 <= best.rate <= 40
    best, trials = find_max(64, lambda rate: Trial(rate, result(median=1), is_borne=False, why=""))
    assert (best, len(trials)) == (None, 7)


def test_a_rate_is_borne_if_latency_errors_and_answers_keep_to_it() -> None:
    bound = Bound(99, 10)
    assert verdict(200, result(median=1), bound).is_borne
    assert not verdict(200, result(median=20), bound).is_borne
    refused = verdict(200, result(median=1, errors=10), bound)
    assert not refused.is_borne
    assert "20 errors" in refused.why
