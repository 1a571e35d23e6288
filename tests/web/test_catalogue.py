"""Every entry of the catalogue is checked by a test."""

from __future__ import annotations

from pathlib import Path

from support import bad_inputs
from support.bad_input_checks import CASES, CHECKS, SEPARATE_CASE


def test_every_check_of_the_catalogue_exists_and_every_entry_has_a_reason() -> None:
    for entry in CASES:
        assert {name.split(":")[0] for name in entry.get("also", [])} <= CHECKS.keys()
        assert entry["why"]
    assert len(CASES) > 180


def test_the_slow_reader_has_a_test() -> None:
    assert SEPARATE_CASE in (Path(__file__).parents[1] / "changes" / "test_slow_watchers.py").read_text()


def test_every_entry_of_the_group_resource_has_a_test() -> None:
    text = (Path(__file__).parent / "test_resources.py").read_text()
    entries = [entry["id"] for entry in bad_inputs.load_cases() if entry["group"] == "resource"]
    assert len(entries) == 6
    assert all(name in text for name in entries)
