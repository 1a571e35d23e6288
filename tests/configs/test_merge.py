"""A merge follows RFC 7396."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given

from confide.configs.merge import merge
from support.json_values import OBJECTS

# The examples of RFC 7396, appendix A, whose original and patch are objects.
RFC_EXAMPLES = [
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


def merge_by_rfc(target: Any, patch: Any) -> Any:
    """Follow the pseudocode of RFC 7396, section 2, line by line."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            if name in result:
                del result[name]
        else:
            result[name] = merge_by_rfc(result.get(name), value)
    return result


@pytest.mark.parametrize(("target", "change", "merged"), RFC_EXAMPLES)
def test_the_examples_of_the_rfc_merge_as_given(target: Any, change: Any, merged: Any) -> None:
    assert merge(target, change) == merged


@given(OBJECTS, OBJECTS)
def test_any_merge_equals_the_pseudocode_of_the_rfc(target: dict[str, Any], change: dict[str, Any]) -> None:
    assert merge(target, change) == merge_by_rfc(target, change)


@given(OBJECTS, OBJECTS)
def test_a_merge_leaves_its_arguments_alone_and_is_idempotent(target: dict[str, Any], change: dict[str, Any]) -> None:
    before = copy.deepcopy((target, change))
    once = merge(target, change)
    assert (target, change) == before
    assert merge(once, change) == once


def test_a_merge_keeps_the_order_of_members() -> None:
    assert list(merge({"z": 1, "a": 2}, {"z": 3, "b": 4})) == ["z", "a", "b"]
