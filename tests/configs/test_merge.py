"""Merging as RFC 7396 says."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given

from confide.configs.merge import merge
from support.json_values import OBJECTS

# RFC 7396, appendix A: those whose original and patch are objects.
APPENDIX = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({"a": "foo"}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


def oracle(target: Any, patch: Any) -> Any:
    """The pseudocode of RFC 7396, section 2, line by line."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            if name in result:
                del result[name]
        else:
            result[name] = oracle(result.get(name), value)
    return result


@pytest.mark.parametrize(("target", "change", "merged"), APPENDIX)
def test_the_examples_of_the_rfc(target: Any, change: Any, merged: Any) -> None:
    assert merge(target, change) == merged


@given(OBJECTS, OBJECTS)
def test_every_merge_is_the_rfcs(target: dict[str, Any], change: dict[str, Any]) -> None:
    assert merge(target, change) == oracle(target, change)


@given(OBJECTS, OBJECTS)
def test_a_merge_alters_neither_side_and_is_done_once(target: dict[str, Any], change: dict[str, Any]) -> None:
    before = copy.deepcopy((target, change))
    once = merge(target, change)
    assert (target, change) == before
    assert merge(once, change) == once


def test_members_keep_their_place() -> None:
    assert list(merge({"z": 1, "a": 2}, {"z": 3, "b": 4})) == ["z", "a", "b"]
